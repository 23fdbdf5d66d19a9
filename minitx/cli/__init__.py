"""The commands of `minitx`, one file each, imported when one runs: `run(args) -> exit code`."""
