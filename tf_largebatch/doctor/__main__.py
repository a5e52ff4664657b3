"""`python -m tf_largebatch.doctor`."""

from tf_largebatch.doctor import main

raise SystemExit(main())
