"""`python -m tf_largebatch.study`."""

from tf_largebatch.study import main

raise SystemExit(main())
