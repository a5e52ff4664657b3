"""`python -m tf_largebatch.plan`."""

from tf_largebatch.plan import main

raise SystemExit(main())
