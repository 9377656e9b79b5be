"""A gallery on a real PostgreSQL server: the laws of a gallery, and what is special to a database."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable

import numpy as np
import psycopg
import pytest

from tests.support.laws import ALL_LAWS
from tests.support.postgres import new_database
from unalike.errors import DataError, ModelError
from unalike.recognition.backends.address import edit_gallery, open_gallery, replace_gallery, save_gallery
from unalike.recognition.backends.conformance_networks import conversion_to, identity_of
from unalike.recognition.backends.conformance_oracle import DIM, create, enrol, random_vectors
from unalike.recognition.backends.pgvector import PostgresGallery
from unalike.recognition.gallery import Gallery


@pytest.fixture(scope="module")
def database() -> str:
    return new_database()


@pytest.fixture
def address(database: str, request: pytest.FixtureRequest) -> str:
    return f"{database}&gallery={request.node.name.replace('[', '.').replace(']', '')}"


@pytest.mark.parametrize("law", ALL_LAWS, ids=lambda law: law.__name__)
def test_postgresql_keeps_the_law(law: Callable[[str], None], address: str) -> None:
    law(address)


def test_a_password_of_the_address_is_told_nowhere(address: str) -> None:
    """Neither by the object, nor by errors, nor by what goes to another process."""
    secret = address.replace("postgres:@", "postgres:hunter2@")
    assert secret != address
    gallery = create(secret)
    told = [repr(gallery), gallery.address, repr(pickle.dumps(gallery)), repr(gallery.__getstate__())]
    for wrong in (
        secret.replace("gallery=", "gallery=none."),
        secret.replace("/test_", "/none_"),
        secret.replace("host=", "host=/none"),
        secret.replace("host=", "port=x&host="),
        secret.replace("host=", "unknown=1&host="),
    ):
        with pytest.raises(DataError) as caught:
            open_gallery(wrong)
        told.append(f"{caught.value} {caught.value.__cause__}")
        assert "\n" not in str(caught.value)
    assert not [text for text in told if "hunter2" in text]


def test_errors_name_the_gallery_and_the_remedy(address: str, database: str) -> None:
    create(address)
    with pytest.raises(DataError, match=r"no gallery 'test_errors_name_the_galery_and_the_remedy' in .*did you mean"):
        open_gallery(address.replace("gallery_and", "galery_and"))
    with pytest.raises(DataError, match="make it with unalike gallery build"):
        open_gallery(new_database() + "&gallery=a")
    with pytest.raises(DataError, match="database .*none.* does not exist; create the database"):
        open_gallery(address.replace("/test_", "/none_"))
    with pytest.raises(DataError, match="check that the server runs"):
        open_gallery(address.replace("host=", "host=/none"))


def test_a_gallery_that_was_replaced_by_another_width_is_refused(address: str) -> None:
    gallery = create(address)
    save_gallery(Gallery(DIM + 1), address, overwrite=True)
    for call in (gallery.refresh, gallery.view, lambda: enrol(gallery, random_vectors(1), ["a"])):
        with pytest.raises(ModelError, match=f"now has width {DIM + 1}, not {DIM}"):
            call()


def end_connections(database: str) -> None:
    """End the connections of galleries to a database, and wait until they are gone."""
    ours = "FROM pg_stat_activity WHERE application_name = 'unalike' AND datname = current_database()"
    with psycopg.connect(database, autocommit=True) as other:
        other.execute(f"SELECT pg_terminate_backend(pid) {ours}")
        while other.execute(f"SELECT count(*) {ours}").fetchone() != (0,):
            time.sleep(0.02)


def test_a_server_that_ends_the_connections_is_asked_again(address: str, database: str) -> None:
    gallery = create(address)
    enrol(gallery, random_vectors(2), ["a", "b"])
    end_connections(database)
    assert gallery.counts() == {"a": 1, "b": 1}
    with gallery.view() as view:
        end_connections(database)
        with pytest.raises(DataError, match="terminat|closed"):
            view.search(random_vectors(1), 1)
    assert len(gallery) == 2


def test_a_statement_that_failed_inside_a_change_undoes_all_of_it(address: str) -> None:
    """A server commits such a transaction as a rollback without a word: it must not be acknowledged."""
    gallery = create(address)
    assert isinstance(gallery, PostgresGallery)
    for count in (0, 1):
        with pytest.raises(DataError, match="a statement of this change failed"), gallery.change() as change:
            change.enrol(random_vectors(count), ["a"] * count)
            with pytest.raises(psycopg.Error):
                change._change.connection.execute("SELECT 1 / 0")
    assert len(gallery) == 0
    enrol(gallery, random_vectors(1), ["b"])
    assert gallery.counts() == {"b": 1}


def test_readers_do_not_wait_for_a_writer_nor_writers_of_other_galleries(address: str) -> None:
    gallery, other = create(address), create(address + ".other")
    enrol(gallery, random_vectors(1), ["a"])
    reader = open_gallery(address)
    done = threading.Event()

    def read() -> None:
        assert reader.counts() == {"a": 1} and not reader.refresh()
        enrol(other, random_vectors(1), ["b"])
        done.set()

    with gallery.change() as change:
        change.enrol(random_vectors(1), ["c"])
        thread = threading.Thread(target=read)
        thread.start()
        assert done.wait(120)
    thread.join()
    assert reader.counts() == {"a": 1, "c": 1}


def test_a_view_keeps_a_gallery_that_is_replaced_meanwhile(address: str) -> None:
    """Its tables are dropped when those who read them have ended; a writer then waits for them."""
    gallery = create(address)
    enrol(gallery, random_vectors(3), list("abc"))
    replacement = Gallery(DIM)
    replacement.enrol(random_vectors(1), ["x"])
    with gallery.view() as view:
        thread = threading.Thread(target=lambda: save_gallery(replacement, address, overwrite=True))
        thread.start()
        thread.join(0.5)
        assert thread.is_alive() and len(view.search(random_vectors(1), 9).entries_QK[0]) == 3
    thread.join()
    assert gallery.counts() == {"x": 1} and gallery.refresh() is False


def test_counters_that_another_program_made_wrong_are_found(address: str, database: str) -> None:
    gallery = create(address)
    enrol(gallery, random_vectors(4), list("aabb"))
    assert open_gallery(address, verify=True).counts() == {"a": 2, "b": 2}
    with psycopg.connect(database) as other:
        other.execute(f"DELETE FROM {gallery._row.vectors_table} WHERE id = 0")  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="its counters differ from its tables"):
        open_gallery(address, verify=True)


def test_a_reader_needs_the_right_to_read_alone(address: str, database: str) -> None:
    gallery = create(address)
    enrol(gallery, random_vectors(2), ["a", "b"])
    with psycopg.connect(database) as admin:
        admin.execute("CREATE ROLE viewer LOGIN")
        admin.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO viewer")
    viewer = open_gallery(address.replace("postgres:@", "viewer@"))
    with viewer.view() as view:
        assert len(view.search(random_vectors(1), 2).entries_QK[0]) == 2
    with pytest.raises(DataError, match="permission denied.*ask the owner"):
        enrol(viewer, random_vectors(1), ["c"])


def test_a_gallery_is_edited_by_its_address(address: str) -> None:
    create(address)
    with edit_gallery(address) as gallery:
        gallery.enrol(random_vectors(2), ["a", "b"])
    with pytest.raises(KeyboardInterrupt), edit_gallery(address) as gallery:
        gallery.remove(labels=["a"])
        raise KeyboardInterrupt
    assert open_gallery(address).counts() == {"a": 1, "b": 1}
    with pytest.raises(DataError, match="at most 16000"):
        save_gallery(Gallery(16_001), address + ".wide")


def test_wide_vectors_are_searched_exactly(database: str) -> None:
    """Above 2,000 dimensions, which pgvector's index of float32 does not take, and above a page of 8 kB."""
    vectors_ND = np.random.default_rng(0).normal(size=(12, 4200)).astype(np.float32)
    for half in (False, True):
        memory = Gallery(4200, half=half)
        memory.enrol(vectors_ND, [f"class {row % 3}" for row in range(12)], ["x" * 3000] * 12)
        kept = save_gallery(memory, f"{database}&gallery=wide.{half}")
        with kept.view() as view:
            found, expected = (
                view.rank(vectors_ND[:4] + 1, "prototype", k=5),
                memory.view().rank(vectors_ND[:4] + 1, "prototype", k=5),
            )
        assert found.label_Q == expected.label_Q and found.nearest.ids_QK.tolist() == expected.nearest.ids_QK.tolist()
        assert np.allclose(found.nearest.scores_QK, expected.nearest.scores_QK, atol=1e-5)


def test_a_former_gallery_is_read_until_it_is_removed_and_leaves_no_table(address: str) -> None:
    """Its name is one that nobody can give, and is proposed to nobody; its readers are told when it is gone."""
    gallery = create(address, identity=identity_of(1))
    enrol(gallery, random_vectors(4), list("aabb"))
    with gallery.view() as view:
        pass
    assert replace_gallery(address, conversion_to(2, seed=50), view)
    with pytest.raises(DataError) as caught:
        open_gallery(address[:-1])
    assert " former " not in str(caught.value)
    assert gallery.counts() == {"a": 2, "b": 2}
    open_gallery(address).drop_former()
    with pytest.raises(ModelError):
        gallery.counts()
    with psycopg.connect(address.partition("&gallery=")[0]) as connection:
        row = gallery._row  # its tables
        statement = "SELECT count(*) FROM pg_tables WHERE tablename IN (%s, %s)"
        assert connection.execute(statement, [row.vectors_table, row.classes_table]).fetchone() == (0,)


def test_a_reader_of_the_former_gallery_goes_on_when_the_network_comes_back(address: str) -> None:
    gallery = create(address, identity=identity_of(1))
    enrol(gallery, random_vectors(4), list("aabb"))
    for number in (2, 1):
        with open_gallery(address).view() as view:
            pass
        assert replace_gallery(address, conversion_to(number, seed=number, labels="xyz"), view)
        assert gallery.counts() == ({"a": 2, "b": 2} if number == 2 else {"x": 1, "y": 1, "z": 1})
    assert enrol(gallery, random_vectors(1), ["n"]) == [3]
