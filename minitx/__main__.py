"""`python -m minitx` is the `minitx` command."""

from minitx.cli.app import main

raise SystemExit(main())
