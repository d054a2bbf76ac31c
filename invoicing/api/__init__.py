"""The API of invoicing: what the subscriber sees and pays, the staff's half, Stripe's messages."""
