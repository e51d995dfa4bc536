"""`python -m router_extproc`."""

from router_extproc.cli import main

raise SystemExit(main())
