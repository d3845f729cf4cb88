"""What `teacher-server` can be told to do, a file for each thing that it is done to."""
