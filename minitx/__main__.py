"""`python -m minitx` is the `minitx` command."""

from minitx.cli import main

raise SystemExit(main())
