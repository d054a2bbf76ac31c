from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.contrib.auth.models import Group
from django.db import (
    DatabaseError,
    IntegrityError,
    OperationalError,
    connection,
    transaction,
)

from config.dberrors import sqlstate
from config.retrying import retry_transaction


@pytest.mark.django_db(transaction=True)
def test_a_deadlock_is_tried_again_and_both_finish() -> None:
    first, second = (Group.objects.create(name=name).pk for name in ("first", "second"))
    both_hold_one = Barrier(2)
    runs: list[tuple[int, int]] = []

    def lock_in_order(order: tuple[int, int]) -> None:
        def work() -> None:
            runs.append(order)
            with transaction.atomic():
                Group.objects.select_for_update().get(pk=order[0])
                if len(runs) <= 2:  # the first run of each meets the other half way
                    both_hold_one.wait(10)
                Group.objects.select_for_update().get(pk=order[1])

        try:
            retry_transaction(work)
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lock_in_order, [(first, second), (second, first)]))
    assert len(runs) == 3


@pytest.mark.django_db(transaction=True)
def test_a_lost_connection_is_tried_again_on_a_new_one() -> None:
    runs: list[int] = []

    def work() -> int:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            runs.append(cursor.fetchone()[0])
            if len(runs) == 1:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            return len(runs)

    assert retry_transaction(work) == 2
    assert runs[0] != runs[1]


@pytest.mark.django_db(transaction=True)
def test_the_last_failure_is_raised() -> None:
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        with connection.cursor() as cursor:
            cursor.execute("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$")

    with pytest.raises(OperationalError) as failure:
        retry_transaction(work, attempts=2)
    assert sqlstate(failure.value) == "40001"
    assert len(runs) == 2


@pytest.mark.django_db(transaction=True)
def test_a_violated_constraint_is_not_tried_again() -> None:
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        with transaction.atomic():
            Group.objects.create(name="twice")
            Group.objects.create(name="twice")

    with pytest.raises(IntegrityError):
        retry_transaction(work)
    assert len(runs) == 1


@pytest.mark.django_db
def test_inside_an_open_transaction_there_is_one_run() -> None:
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$")

    with pytest.raises(DatabaseError):
        retry_transaction(work)
    assert len(runs) == 1
