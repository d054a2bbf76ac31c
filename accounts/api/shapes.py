"""How accounts, subscribers and keys look in JSON."""

from rest_framework import serializers

from accounts.models import Account, ApiKey, NumberAssignment, Subscriber, SubscriberTransition


class AccountOutput(serializers.ModelSerializer[Account]):
    class Meta:
        model = Account
        fields = ["id", "kind", "name", "tax_number", "email", "created_at"]
        read_only_fields = fields


class AccountInput(serializers.Serializer[Account]):
    kind = serializers.ChoiceField(choices=Account.Kind.choices, default=Account.Kind.PERSON)
    name = serializers.CharField(max_length=200)
    tax_number = serializers.CharField(max_length=20, required=False, default="", allow_blank=True)
    email = serializers.EmailField(required=False, default="", allow_blank=True)


class SubscriberOutput(serializers.ModelSerializer[Subscriber]):
    account_id = serializers.IntegerField(read_only=True)

    class Meta:
        model = Subscriber
        fields = ["id", "account_id", "msisdn", "state", "language", "created_at"]
        read_only_fields = fields


class NumberOutput(serializers.ModelSerializer[NumberAssignment]):
    class Meta:
        model = NumberAssignment
        fields = ["msisdn", "valid_from", "valid_until"]
        read_only_fields = fields


class TransitionOutput(serializers.ModelSerializer[SubscriberTransition]):
    class Meta:
        model = SubscriberTransition
        fields = ["from_state", "to_state", "actor", "reason", "at"]
        read_only_fields = fields


class SubscriberDetail(SubscriberOutput):
    """A subscriber with the numbers held and the newest steps of its life."""

    numbers = NumberOutput(many=True, read_only=True)
    transitions = TransitionOutput(many=True, read_only=True, source="newest_transitions")

    class Meta(SubscriberOutput.Meta):
        fields = [*SubscriberOutput.Meta.fields, "numbers", "transitions"]
        read_only_fields = fields


class SubscriberInput(serializers.Serializer[Subscriber]):
    account_id = serializers.IntegerField(min_value=1)
    msisdn = serializers.CharField(max_length=40)
    reason = serializers.CharField(max_length=400)
    language = serializers.ChoiceField(choices=["zh-hans", "en"], default="zh-hans")
    number_from = serializers.DateTimeField(required=False)


class ReasonInput(serializers.Serializer[Subscriber]):
    reason = serializers.CharField(max_length=400)


class NumberInput(ReasonInput):
    msisdn = serializers.CharField(max_length=40)


class MeOutput(SubscriberOutput):
    account_name = serializers.CharField(source="account.name", read_only=True)

    class Meta(SubscriberOutput.Meta):
        fields = [*SubscriberOutput.Meta.fields, "account_name"]
        read_only_fields = fields


class KeyOutput(serializers.ModelSerializer[ApiKey]):
    class Meta:
        model = ApiKey
        fields = [
            "public_id",
            "name",
            "scopes",
            "created_at",
            "expires_at",
            "last_used_at",
            "revoked_at",
        ]
        read_only_fields = fields


class NewKeyOutput(KeyOutput):
    """A key just made: the only answer that ever carries its secret."""

    key = serializers.CharField(read_only=True)

    class Meta(KeyOutput.Meta):
        fields = [*KeyOutput.Meta.fields, "key"]
        read_only_fields = fields


class KeyInput(serializers.Serializer[ApiKey]):
    name = serializers.CharField(max_length=100, required=False, default="", allow_blank=True)
    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=["me:read", "me:write"]),
        max_length=2,
        required=False,
        default=list,
    )
    expires_at = serializers.DateTimeField(required=False, allow_null=True, default=None)
