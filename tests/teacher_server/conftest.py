"""The running service is a fixture of every test in this folder."""

from tests.teacher_server.running_service import certificates, service, table_service

__all__ = ["certificates", "service", "table_service"]
