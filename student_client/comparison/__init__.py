"""Methods side by side: a table of students, each against the student alone."""
