"""What a user should know before a run: `python -m tf_largebatch.doctor [--format=json]`."""

from tf_largebatch.doctor._command import examine, main
from tf_largebatch.doctor._report import Finding, report

__all__ = ["Finding", "examine", "main", "report"]
