import pytest

from accounts.numbers import InvalidNumber, normalise_msisdn


@pytest.mark.parametrize(
    ("typed", "number"),
    [
        ("13900000001", "+8613900000001"),
        ("+8613900000001", "+8613900000001"),
        ("008613900000001", "+8613900000001"),
        (" 139 0000-0001 ", "+8613900000001"),
        ("+86 (139) 0000 0001", "+8613900000001"),
        ("１３９０００００００１", "+8613900000001"),
        ("+4915112345678", "+4915112345678"),
        ("+861064800000001", "+861064800000001"),  # a machine's number: 13 digits after +86
    ],
)
def test_what_people_type_becomes_one_e164_text(typed: str, number: str) -> None:
    assert normalise_msisdn(typed) == number


@pytest.mark.parametrize(
    "typed",
    ["", "1", "139000000012", "+86139000000", "1390000000a", "+1-800-FLOWERS", "+0123456789",
     "13900000001 ext. 5", "+86139000000011", "9" * 50, "+8613900000001\n+8613900000002", "\x00"],
)  # fmt: skip
def test_what_is_no_number_is_refused(typed: str) -> None:
    with pytest.raises(InvalidNumber):
        normalise_msisdn(typed)
