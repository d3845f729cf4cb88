"""`python -m teacher_server.rehearsal`: the rehearsal, up in less than a second."""

from teacher_server.rehearsal.command import main

main()
