"""How dates are written when a template does not say: the same, and sortable, in each language."""
