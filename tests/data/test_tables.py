"""CSV and TSV files: every cell as it stands there, and no row whose cells cannot be told apart."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroada.config.errors import UserError
from neuroada.data.library_rows import read_folder
from neuroada.data.tables import read_file

Write = Callable[[str], Path]
ROW = {"question": "One, or\ntwo?", "answer": "007"}


@pytest.fixture
def table(tmp_path: Path) -> Write:
    """A CSV file with this text."""

    def write(text: str) -> Path:
        path = tmp_path / "sums.csv"
        path.write_bytes(text.encode())
        return path

    return write


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_cells_stay_as_they_are(table: Write, mark: str, ends: str) -> None:
    path = table(ends.join([f"{mark}question,answer", '"One, or\ntwo?",007', "", "NA,"]))
    assert read_file(path) == [ROW, {"question": "NA", "answer": ""}]


def test_columns_may_be_apart_by_tabs(tmp_path: Path) -> None:
    (tmp_path / "sums.TSV").write_text('question\tanswer\n"One, or\ntwo?"\t007\n')
    assert read_file(tmp_path / "sums.TSV") == [ROW]


_CELLS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=12)


@given(st.lists(st.tuples(_CELLS, _CELLS.map(lambda text: f"x{text}")), min_size=1))
def test_what_the_standard_writer_wrote_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    written = io.StringIO(newline="")
    csv.writer(written).writerows([("question", "answer"), *rows])
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    path.write_bytes(written.getvalue().encode())
    assert [tuple(row.values()) for row in read_file(path)] == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # Read as an index by pandas, which moved every other cell to the column before its own.
        (
            "question,answer\nOne, or two?,2\n",
            r"line 2: cells do not match columns \(3 for 2\); put texts that hold the sep",
        ),
        ('question,answer\n"a\nb",1\nOne, or two?,2\n', r"line 4: cells do not match columns \(3 for 2\)"),
        ("question,answer\na,1\nb\n", r"line 3: cells do not match columns \(1 for 2\)"),
        ("question,answer\na,1,\nb,2,\n", r"line 2: cells do not match columns \(3 for 2\)"),
        ("answer,answer\n1,2\n", "has two columns 'answer'; rename one of them"),
        ('question,answer\n"a,1\nb,2\n', "line 2: not CSV"),
        ("question,answer\n", "contains no rows; add at least one"),
        ("", "contains no rows; add at least one"),
    ],
)
def test_a_file_whose_cells_cannot_be_told_apart_is_refused(table: Write, text: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"sums\.csv: {message}"):
        read_file(table(text))


def test_other_encodings_are_named(tmp_path: Path) -> None:
    (tmp_path / "sums.csv").write_bytes("question,answer\nWas heißt das?,1\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"sums\.csv: not CSV in UTF-8 \(.*\); save it as UTF-8"):
        read_file(tmp_path / "sums.csv")


def test_a_folder_of_several_files_reads_cells_in_the_same_way(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"train-0000{number}-of-00002.csv").write_text(f"question,answer\nWhich?,00{number}\n")
    (tmp_path / "test.csv").write_text("question,answer\nWhich?,NA\n")
    assert [row["answer"] for row in read_folder(tmp_path, "train")] == ["000", "001"]
    assert read_folder(tmp_path, "test") == [{"question": "Which?", "answer": "NA"}]
    with pytest.raises(UserError, match=r"has no split 'dev' \(it has train, test\); give one with split"):
        read_folder(tmp_path, "dev")
