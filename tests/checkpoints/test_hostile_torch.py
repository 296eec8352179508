"""Files of PyTorch that would take far more memory or time than their size are refused."""

import io
import struct
import time
import zipfile

import numpy as np
import pytest

from tests.checkpoints.torch_names import little_memory, named, pth, refusal, tensor, text
from vit_jax.checkpoints import files, torch_pickle


@pytest.fixture(autouse=True)
def _soon():
    begin = time.process_time()
    yield
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    ("count", "size", "shape", "strides"),
    [
        (1, 4, (2**40,), (0,)),
        (2, 4, (2**24,), (0,)),
        (40, 4, (2**20,), (0,)),
        (1, 4, (2**15, 2**15, 4), (0, 0, 1)),
        (200, 2**18, (2**17,), (1,)),
    ],
    ids=["one", "two", "forty", "axes", "views"],
)
def test_views_that_would_fill_the_memory_are_refused(tmp_path, count, size, shape, strides):
    shapes = tensor(size, tuple(min(n, 2**31 - 1) for n in shape), strides)
    path = pth(tmp_path / "a.pth", named(*[shapes] * count), storage=bytes(4 * size))
    with little_memory():
        assert "far more than the file" in refusal(path)


def test_tied_and_expanded_tensors_are_read(tmp_path):
    storage = np.arange(6, dtype=np.float32)
    whole, expanded = tensor(6, (2, 3), (3, 1)), tensor(6, (1000, 3), (0, 1), 3)
    path = pth(tmp_path / "a.pth", named(whole, whole, expanded), storage=storage.tobytes())
    arrays = files.read_arrays(path)
    np.testing.assert_array_equal(arrays["t1"], storage.reshape(2, 3))
    np.testing.assert_array_equal(arrays["t2"], np.tile(storage[3:], (1000, 1)))


COUNT = 100_000


@pytest.mark.parametrize(
    "pickle",
    [
        b"(" * COUNT + b"t" * COUNT,
        b"(" * COUNT + b"l" * COUNT,
        b"(" * (3 * COUNT),
        b"]" + b"(" * COUNT + b"Nt" * COUNT + b"a",
        b"]" + b"(Ne" * COUNT,
        b"](" + b"N" * COUNT + b"e" + b"(Nl0" * 10,
    ],
    ids=["tuples", "lists", "marks", "nested", "appends", "pop"],
)
def test_marks_are_read_in_linear_time(tmp_path, pickle):
    refusal(pth(tmp_path / "a.pth", pickle))


def test_a_pickle_that_copies_values_repeatedly_is_refused(tmp_path):
    pairs = b"](" + b"".join(text(str(i)) + b"N\x86" for i in range(COUNT)) + b"eq\0"
    call = b"ccollections\nOrderedDict\nh\0\x85R"
    assert "copies the same values" in refusal(
        pth(tmp_path / "a.pth", b"](" + pairs + call * COUNT + b"e")
    )
    shape = b"(" + b"K\1" * COUNT + b"tq\0"
    call = tensor(4, (), ()).replace(b"(t(t", b"h\0h\0")
    assert "copies the same values" in refusal(
        pth(tmp_path / "a.pth", b"](" + shape + call * 1000 + b"e")
    )


SIZE = b"ctorch\nSize\nq\1"
DICT = b"ccollections\nOrderedDict\nq\1"
PAIRS = b"}(" + b"".join(text(str(i)) + b"N" for i in range(1000)) + b"uq\0"


@pytest.mark.parametrize(
    "pickle",
    [
        text("a" * 10_000) + b"q\0" + SIZE + b"h\1h\0\x85R" * 300,
        b"C\xff" + b"a" * 255 + b"q\0" + SIZE + b"h\1h\0\x85R" * 5000,
        b"\x8f(" + b"".join(b"J" + struct.pack("<i", i) for i in range(1000)) + b"\x90q\0" + SIZE
        + b"h\1h\0\x85R" * 1000,
        PAIRS + DICT + b"ctorch._tensor\n_rebuild_from_type_v2\nq\2(h\1N](h\0eNtq\3"
        + b"h\2h\3R" * 200,
        text("torch") + b"q\0" + text("b" * 10_000 + "Storage") + b"q\1" + b"h\0h\1\x93" * 1000,
        b"]" + b"ctorch\n" + b"b" * 10_000 + b"Storage\nq\0a",
    ],
    ids=["text", "bytes", "set", "arguments in a list", "joined name", "name"],
)  # fmt: skip
def test_a_pickle_cannot_multiply_its_content(tmp_path, pickle):
    path = pth(tmp_path / "a.pth", b"](" + pickle + b"e")
    with little_memory(2**20 + 20 * path.stat().st_size):
        refusal(path)


def test_values_are_counted_before_they_are_looked_at(monkeypatch):
    """A call whose arguments hold one long tuple many times: their product is never computed."""
    looked = []
    length = torch_pickle._length
    monkeypatch.setattr(torch_pickle, "_length", lambda v: looked.append(len(v)) or length(v))
    long, many = b"(" + b"N" * 3000 + b"tq\0", b"(" + b"h\0" * 3000 + b"t"
    calls = [
        long + b"c__builtin__\nset\n" + many + b"R",
        long + b"c__builtin__\nset\nq\1" + b"h\1h\0R" * 3000,
    ]
    for call in calls:
        looked.clear()
        with pytest.raises(ValueError, match="copies the same values"):
            torch_pickle.interpret(io.BytesIO(b"\x80\2](" + call + b"e."))
        assert sum(looked) < 20_000


def test_a_long_integer_is_no_key(tmp_path):
    number = b"\x8b" + struct.pack("<i", 1000) + b"\1" * 1000
    content = torch_pickle.interpret(io.BytesIO(b"\x80\2}(" + number + b"NK\1Nu."))
    assert [type(key).__name__ for key in content] == ["Inert", "int"]


def test_each_dict_is_searched_for_tensors_once_at_each_depth(tmp_path, monkeypatch):
    nested = b"}q\1"  # each level holds the one before 20 times
    for level in range(2, 6):
        pairs = b"".join(b"K" + bytes([i]) + b"h" + bytes([level - 1]) for i in range(20))
        nested += b"}(" + pairs + b"uq" + bytes([level])
    beside = b"".join(text(f"beside {i}") + b"h\5" for i in range(20))
    path = pth(tmp_path / "a.pth", b"}(" + text("x") + b"](" + nested + b"e" + text("model") + b"}"
               + beside + b"u")  # fmt: skip
    calls = []
    search = files._holds_tensors
    monkeypatch.setattr(
        files, "_holds_tensors", lambda v, *a, **k: calls.append(v) or search(v, *a, **k)
    )
    assert "it holds no named tensors" in refusal(path)
    assert len(calls) < 200


def test_the_keys_of_an_old_file_are_names(tmp_path):
    nested = b"]" + b"q\0" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(16))
    head = b"\x80\2\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + b"\x80\2M\xe9\3."
    path = tmp_path / "a.pth"
    path.write_bytes(head + 2 * b"\x80\2}." + b"\x80\2](" + nested + b"e.")
    with little_memory(2**18):
        assert "not of torch.save" in refusal(path)


MODULE = b"ctorch.nn.modules.linear\nLinear\n"


def test_modules_that_share_their_parameters_are_refused(tmp_path):
    shared = b"}(" + b"".join(text(f"p{i}") + b"h\1" for i in range(200)) + b"uq\2"
    inner = b"h\3)\x81}" + text("_parameters") + b"h\2sb"
    modules = b"}(" + b"".join(text(f"m{i}") + inner for i in range(200)) + b"u"
    before = text("x") + b"](" + tensor(1, (1,), (1,)) + b"q\1" + shared + MODULE + b"q\3e"
    outer = MODULE + b")\x81}(" + before + text("_modules") + modules + b"ub"
    with little_memory(2**20):
        assert "a part of one, that is used twice" in refusal(pth(tmp_path / "a.pth", outer))


def test_a_module_with_a_long_name_is_refused(tmp_path):
    """Otherwise the names of its parameters would all begin with it."""
    own = b"}(" + b"".join(text(f"p{i}") + b"h\1" for i in range(200)) + b"u"
    inner = MODULE + b")\x81}" + text("_parameters") + own + b"sb"
    before = text("x") + tensor(1, (1,), (1,)) + b"q\1"
    outer = MODULE + b")\x81}(" + before + text("_modules") + b"}" + text("m" * 10_000) + inner
    with little_memory(2**20):
        assert "nested too deeply" in refusal(pth(tmp_path / "a.pth", outer + b"sub"))


@pytest.mark.parametrize("before", [b"", b"\x80"])
def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path, monkeypatch, before):
    monkeypatch.setattr(files, "_SMALL", 2**20)
    path = pth(tmp_path / "a.pth", b"}", storage=bytes(2**22), method=zipfile.ZIP_DEFLATED)
    path.write_bytes(before + path.read_bytes())
    with little_memory(2**20):
        assert "it would unpack to 4194" in refusal(path)


@pytest.mark.parametrize(
    "pickle",
    [
        b"I" + b"9" * 10**6 + b"\n",
        b"\x8b" + struct.pack("<i", 2**31 - 1) + b"1" * 100,
        b"\x8b" + struct.pack("<i", -1),
        b"B" + struct.pack("<I", 2**32 - 1),
        b"\x8e" + struct.pack("<Q", 2**63),
        b"\x85",
        b"\x86\x87",
        b"(((",
        b"0" * 9,
        b"h\7",
        b"",
        b"N(",
        b"NN",
        b"F" + b"1" * 10**6 + b"\n",
        b"V\\ud800\n",
        b"X\4\0\0\0\xff\xff\xff\xff",
    ],
)
def test_odd_pickles_are_refused(tmp_path, pickle):
    refusal(pth(tmp_path / "a.pth", pickle))


def test_a_huge_number_as_text_in_a_zip_is_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02L" + b"9" * 10**7 + b"L\n.")
    (tmp_path / "a.pth").write_bytes(buffer.getvalue())
    refusal(tmp_path / "a.pth")
