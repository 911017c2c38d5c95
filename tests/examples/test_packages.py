import hashlib
import io
import tarfile
import zipfile

import pytest

from examples.packages import Package, PackageError, unpack


def tar(path, **members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = content
                archive.addfile(member)
    return path


def zipped(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("pack", [tar, zipped])
def test_only_members_that_match_are_unpacked(tmp_path, pack):
    archive = pack(tmp_path / "a", **{"p/data/a.abc": b"X:1", "p/setup.py": b"", "q.abc": b""})
    unpack(archive, tmp_path / "out", "p/data/*.abc")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files == [tmp_path / "out" / "p" / "data" / "a.abc"]
    assert files[0].read_bytes() == b"X:1"


@pytest.mark.parametrize(
    "members",
    [
        {"p/../../evil": b"x"},
        {"p/link": (tarfile.SYMTYPE, "/etc/passwd")},
        {"p/link": (tarfile.SYMTYPE, "../../evil")},
        {"p/device": (tarfile.CHRTYPE, "")},
    ],
)
def test_a_tar_member_that_leaves_the_folder_is_refused(tmp_path, members):
    archive = tar(tmp_path / "a.tar.gz", **members)
    with pytest.raises(PackageError, match=r"a\.tar\.gz"):
        unpack(archive, tmp_path / "out", "p/*")
    assert not (tmp_path / "evil").exists()


def test_a_zip_member_that_leaves_the_folder_is_refused(tmp_path):
    archive = zipped(tmp_path / "a.whl", **{"p/../../evil": b"x"})
    with pytest.raises(PackageError, match="leads out"):
        unpack(archive, tmp_path / "out", "p/*")
    assert not (tmp_path / "evil").exists()


def test_nothing_that_matches_is_an_error(tmp_path):
    with pytest.raises(PackageError, match=r"nothing in it is called \*\.ts"):
        unpack(tar(tmp_path / "a.tar.gz", a=b""), tmp_path / "out", "*.ts")


def test_what_is_cached_is_taken_if_its_hash_is_right(tmp_path):
    (tmp_path / "p-1.tar.gz").write_bytes(b"right")
    package = Package("p==1", "p-1.tar.gz", hashlib.sha256(b"right").hexdigest())
    assert package.fetch(tmp_path) == tmp_path / "p-1.tar.gz"
    (tmp_path / "p-1.tar.gz").write_bytes(b"wrong")
    with pytest.raises(PackageError, match="SHA-256"):
        package.fetch(tmp_path)


def test_a_version_must_be_pinned():
    with pytest.raises(ValueError, match="name==version"):
        Package("sktime", "sktime.whl", "0" * 64)
