"""``python -m vj``: list the commands, or run one."""

from vj.cli.commands import main

raise SystemExit(main())
