"""How the commands of `student-client` name a service's connection; no torch."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from student_client.connection import Connection

Flag = Annotated[bool, Parameter(negative="")]
Wire = Annotated[Connection, Parameter(name="*", negative="", group="Connection")]
WIRE = Connection()
