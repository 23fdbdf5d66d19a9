"""`python -m minitx` and the entry point of `minitx`: Ctrl-C is quiet from here on, also during imports."""


def main() -> int:
    """Runs the command; returns its exit code, 130 where it was interrupted before it could begin."""
    try:
        from minitx.signals import leave_at_once

        leave_at_once()
        from minitx.cli.app import main as run

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
