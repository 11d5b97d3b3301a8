"""The command line: verbs, help, exit codes, and how jobs are run."""
