"""The table of norms: its header, its rows, and what resuming leaves of it."""

import pytest

pytestmark = pytest.mark.tensorflow


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path):
    """ram:// is in TensorFlow's memory; it stands for an object store, such as gs://."""
    return f"{tmp_path if request.param == 'local' else f'ram://{tmp_path.name}'}/run"


def test_rows_are_appended_and_cut(folder):
    """Cut to nothing, the table gets its header again."""
    from tf_largebatch.diagnostics import LayerFigures
    from tf_largebatch.diagnostics.summaries import COLUMNS, NormsWriter
    from tf_largebatch.training import files, run_folder

    place = f"{folder}/{run_folder.DIAGNOSTICS}"
    header = ",".join(COLUMNS)
    row = LayerFigures("d/kernel", 5.0, 2.0, 0.5, float("nan"), 0.25)
    cells = "d/kernel,5.0,2.0,0.5,,0.1,0.25"

    def lines():
        return files.read(f"{place}/norms.csv").decode().splitlines()

    for append, updates in (False, (0, 5)), (True, (10, 15)):
        writer = NormsWriter(place, append=append)
        writer.open()
        for update in updates:
            writer.write(update, [row])
        writer.close()
    assert lines() == [header, *(f"{update},{cells}" for update in (0, 5, 10, 15))]
    run_folder.cut_logs(folder, 0, 11)
    assert lines() == [header, *(f"{update},{cells}" for update in (0, 5, 10))]
    run_folder.cut_logs(folder, 0, 0)
    assert lines() == []
    NormsWriter(place, append=True).open()
    assert lines() == [header]
