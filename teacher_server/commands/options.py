"""How the commands of `teacher-server` name the options that several of them share; no torch."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from teacher_server.options import ServeOptions

Flag = Annotated[bool, Parameter(negative="")]
Names = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]
Serving = Annotated[ServeOptions, Parameter(name="*", negative="", group="Service")]
