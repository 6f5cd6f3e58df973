"""Certificates: whatever is changed in one is found."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retract.auditing.certificate import CertifiedRequest, read, sign
from retract.data import Catalog, Interactions
from retract.data.digest import retained_digest
from retract.errors import CertificateError
from retract.stores.ledger import Request
from tests.auditing.statements import KEY, STATEMENT
from tests.tiny import tiny_dataset

CONTENT = sign(STATEMENT, KEY)
PLACES = st.integers(0, len(CONTENT) - 1)


def canonical(fields: object) -> bytes:
    """JSON as certificates are written."""
    return (json.dumps(fields, sort_keys=True, indent=1) + "\n").encode()


def signed(**changes: object) -> bytes:
    """A certificate whose signature holds, of fields that `sign` might refuse; None leaves one out."""
    fields = {**json.loads(CONTENT), **changes}
    said = {name: value for name, value in fields.items() if value is not None and name != "signature"}
    return canonical({**said, "signature": KEY.sign(canonical(said)).hex()})


def refusal(content: bytes) -> str:
    """The one line that refuses a certificate."""
    with pytest.raises(CertificateError) as caught:
        read(content, "c.json")
    text = str(caught.value)
    assert text.startswith("c.json ")
    assert text.isprintable()
    return text


# --- the file ---------------------------------------------------------------------------------------------------------


def test_what_was_stated_is_read_again():
    found = read(CONTENT, "c.json")
    assert {name: getattr(found, name) for name in vars(STATEMENT)} == vars(STATEMENT)
    assert found.public == KEY.public_key()


def test_the_same_statement_gives_the_same_bytes_and_states_its_software():
    assert sign(STATEMENT, KEY) == CONTENT
    assert {"retract", "python", "torch", "numpy"} < json.loads(CONTENT).keys()


def test_a_certificate_tells_of_a_request_neither_its_user_nor_its_items():
    request = Request("5f0c", "erase", "Alice", 2, ("Solaris", "Stalker"), "2026-07-01")
    content = sign(replace(STATEMENT, requests=(CertifiedRequest.of(request),)), KEY)
    assert json.loads(content)["requests"] == [{"count": 2, "id": "5f0c", "kind": "erase", "received": "2026-07-01"}]
    assert not any(name in content for name in (b"Alice", b"Solaris", b"Stalker"))


@given(PLACES, st.integers(0, 7))
def test_a_flipped_bit_is_found(place, bit):
    changed = bytearray(CONTENT)
    changed[place] ^= 1 << bit
    refusal(bytes(changed))


@given(PLACES, st.integers(1, 255))
def test_a_changed_byte_is_found(place, change):
    changed = bytearray(CONTENT)
    changed[place] ^= change
    refusal(bytes(changed))


@given(PLACES)
def test_a_missing_byte_is_found(place):
    refusal(CONTENT[:place] + CONTENT[place + 1 :])


@given(st.integers(0, len(CONTENT)), st.one_of(st.binary(min_size=1, max_size=3), st.sampled_from([b" ", b"\n", b"0"])))
def test_an_inserted_byte_is_found(place, more):
    refusal(CONTENT[:place] + more + CONTENT[place:])


def test_it_is_refused_cut_at_any_length():
    for length in range(len(CONTENT)):
        refusal(CONTENT[:length])


@pytest.mark.parametrize(
    "spell",
    [
        lambda text: text.replace('"seed": 0', '"seed": -0'),
        lambda text: text.replace('"seed": 0', '"seed": 0,\n "seed": 0'),
        lambda text: text.replace("0.1", "1e-1"),
        lambda text: text.replace("\\u00c4", "\\u00C4"),
        lambda text: text.replace("\\u00c4", "Ä"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: json.dumps(json.loads(text)),
        lambda text: json.dumps(dict(reversed(json.loads(text).items())), indent=1) + "\n",
    ],
)
def test_the_same_fields_in_another_spelling_are_refused(spell):
    text = spell(CONTENT.decode())
    assert text != CONTENT.decode()
    assert "is not what was signed: it was written anew or changed" in refusal(text.encode())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"retract", "is not the JSON of one"),
        (b"\xff\xfe", "is not the JSON of one"),
        (b"[" * 100_000, "is not the JSON of one"),
        (canonical([]), "has no field 'format'"),
        (canonical({"name": "of a web page"}), "has no field 'format'"),
        (b'{"format": 1' + b"0" * 5000 + b"}", "is not the JSON of one"),
        (b'{"format": ' + b"[" * 400 + b"]" * 400 + b"}", r"c.json "),
        (b'{"format": NaN}', "is not the JSON of one"),
        (b'{"format": 1e999}', "is not the JSON of one"),
        (canonical({"format": 2}), r"has certificate format 2, this retract .* reads 1"),
        (canonical({"format": 1}), "has no field 'figures'"),
        (signed(model_after=None), "has no field 'model_after'"),
        (signed(torch=None), "has no field 'torch'"),
        (signed(user="Alice"), "field 'user' is 'Alice': Unexpected"),
        (signed(seed="0"), "field 'seed' is '0': .* valid integer"),
        (signed(seed=True), "field 'seed' is True: .* valid integer"),
        (signed(n_retained=-1), "field 'n_retained' is -1: .* greater than or equal to 0"),
        (signed(retained="D" * 64), "field 'retained' is 'DDD.*: String should match"),
        (signed(public_key="0" * 63), "field 'public_key' is '000.*: String should match"),
        (signed(requests={}), "field 'requests' is {}: .* valid array"),
        (signed(requests=[{"id": "1"}]), "field 'requests.0.kind' is .*: Field required"),
        (signed(system="\x1b[2Jexact"), r"field 'system' is '\\x1b\[2Jexact': .* printable text"),
        (signed(public_key="ab" * 32), "its signature does not hold for key SHA256:"),
    ],
)
def test_what_is_no_certificate_is_refused_with_its_reason(content, message):
    with pytest.raises(CertificateError, match=message):
        read(content, "c.json")
    refusal(content)


@pytest.mark.parametrize(
    "changes",
    [
        {"figures": {"attack_auc": float("nan")}},
        {"figures": {"attack_auc": [float("inf")]}},
        {"figures": {"attack_auc": np.float32(0.5)}},
        {"figures": {"note": "\ud800"}},
        {"settings": {1: 0, "a": 0}},
        {"model_after": "unknown"},
        {"method": "two\nlines"},
        {"seed": 0.5},
    ],
)
def test_what_could_not_be_read_again_is_not_signed(changes):
    with pytest.raises(CertificateError, match=r"^the statement .*(cannot be signed|is no certificate)"):
        sign(replace(STATEMENT, **changes), KEY)


# --- the digest of what is retained -----------------------------------------------------------------------------------


def slow_digest(interactions: Interactions) -> str:
    """The digest as its docstring reads."""
    columns = {"rating": interactions.ratings, "timestamp": interactions.timestamps}
    names = [name for name, column in columns.items() if column is not None]
    lines = []
    for row, (user, item) in enumerate(zip(interactions.users, interactions.items, strict=True)):
        ids = [str(interactions.catalog.user_ids[user]), str(interactions.catalog.item_ids[item])]
        ids = [name.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n") for name in ids]
        lines.append("\t".join([*ids, *(str(columns[name][row].item()) for name in names)]))
    text = "".join(f"{line}\n" for line in ["\t".join(["user", "item", *names]), *sorted(lines)])
    return hashlib.sha256(text.encode()).hexdigest()


IDS = st.lists(st.text("aÄ\t\n\\9", min_size=1, max_size=3), min_size=1, max_size=6, unique=True)


@given(IDS, IDS, st.integers(0, 1000), st.booleans(), st.booleans())
def test_the_digest_is_the_one_that_its_docstring_describes(users, items, seed, rated, timed):
    draw = np.random.default_rng(seed)
    held = np.nonzero(draw.random((len(users), len(items))) < 0.5)
    ratings = draw.choice([0.1, 4, 3.5, 1e-9, 3e8], len(held[0])) if rated else None
    times = draw.integers(-5, 2**62, len(held[0])) if timed else None
    catalog = Catalog(np.array(users), np.array(items))
    found = Interactions.of(catalog, *held, ratings, times)
    assert retained_digest(found) == slow_digest(found)


def test_the_digest_does_not_depend_on_the_order_of_the_catalog_nor_on_who_else_is_in_it():
    data = tiny_dataset().interactions
    catalog = data.catalog
    turned = Catalog(np.append(catalog.user_ids, "new")[::-1], catalog.item_ids[::-1])
    codes = len(catalog.user_ids) - data.users, len(catalog.item_ids) - 1 - data.items
    assert retained_digest(Interactions.of(turned, *codes, data.ratings, data.timestamps)) == retained_digest(data)


def test_the_digest_tells_every_difference():
    data = tiny_dataset().interactions
    one, gone = np.zeros(len(data)), np.arange(len(data)) != 7
    one[7] = 1
    others = [
        data.where(gone),
        replace(data, ratings=None),
        replace(data, timestamps=None),
        replace(data, ratings=None, timestamps=None),
        replace(data, ratings=(data.ratings + one).astype(np.float32)),
        replace(data, timestamps=data.timestamps + one.astype(np.int64)),
        Interactions.empty(data.catalog),
    ]
    assert len({retained_digest(each) for each in [data, *others]}) == len(others) + 1


def test_zero_has_one_sign():
    catalog = tiny_dataset().interactions.catalog
    plus, minus = (retained_digest(Interactions.of(catalog, [0, 1], [0, 1], [zero, zero])) for zero in (0.0, -0.0))
    assert plus == minus
