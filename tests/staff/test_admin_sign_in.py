"""Signing in to the staff site: by its own page, and on to where one wanted to be."""

import re

import pytest
from django.test import Client

from accounts.models import User


@pytest.fixture
def clerk(db: None) -> User:
    return User.objects.create_user(username="clerk", password="a long secret", is_staff=True)


def sign_in(client: Client, address: str) -> str:
    """Fill in the page as a browser does, its hidden fields too; where it leads."""
    page = client.get(address).text
    hidden = re.findall(
        r'<input type="hidden" name="(\w+)" value="([^"]*)" form="login-form"', page
    )
    fields = dict(hidden) | {"username": "clerk", "password": "a long secret"}
    return client.post(address, fields)["Location"]


def test_staff_who_open_the_sign_in_page_get_to_the_staff_site(clerk: User) -> None:
    client = Client()
    assert sign_in(client, "/admin/login/") == "/admin/"
    assert client.get("/admin/login/")["Location"] == "/admin/"


def test_staff_get_where_they_wanted_to_be(clerk: User) -> None:
    assert sign_in(Client(), "/admin/login/?next=/admin/usage/pool/") == "/admin/usage/pool/"


def test_nobody_is_led_to_another_house(clerk: User) -> None:
    assert sign_in(Client(), "/admin/login/?next=https://example.com/") == "/"
