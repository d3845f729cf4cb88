"""Types of options that several commands have."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from privacy.audit.wire import Connection

Flag = Annotated[bool, Parameter(negative="")]
Names = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]
Paths = Annotated[tuple[Path, ...], Parameter(negative="", show_default=False)]
Wire = Annotated[Connection, Parameter(name="*", negative="", group="Connection")]
