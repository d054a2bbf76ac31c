"""`manage.py run`: everything together, until Ctrl-C."""

from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from config.local.programs import all_programs
from config.local.servers import local_servers
from config.local.supervisor import GaveUp, Supervisor, on_stop_signals


class Command(BaseCommand):
    help = "Migrates, loads the catalogue, then runs web, worker and beat until Ctrl-C."

    def handle(self, *args: Any, **options: Any) -> None:
        servers = local_servers()
        with servers:
            call_command("migrate", interactive=False, verbosity=options["verbosity"])
            for command in ("setup_roles", "load_catalogue", "make_partitions"):
                call_command(command)
            connections.close_all()
            supervisor = Supervisor(all_programs(), servers=servers)
            on_stop_signals(supervisor.request_stop)
            self._say_where()
            try:
                with supervisor:
                    supervisor.wait()
            except GaveUp as failure:
                raise CommandError(str(failure)) from failure

    def _say_where(self) -> None:
        postgres = settings.LAYOUT.sockets if settings.EMBEDDED_POSTGRES else "DATABASE_URL"
        broker = settings.LAYOUT.valkey_socket if settings.EMBEDDED_VALKEY else "BROKER_URL"
        self.stderr.write(
            f"portal     {settings.PUBLIC_URL}/\n"
            f"admin      {settings.PUBLIC_URL}/admin/   (manage.py createsuperuser)\n"
            f"API        {settings.PUBLIC_URL}/api/docs/\n"
            f"PostgreSQL {postgres}\n"
            f"broker     {broker}\n"
            f"data       {settings.VAR_DIR}\n"
            "Ctrl-C stops everything."
        )
