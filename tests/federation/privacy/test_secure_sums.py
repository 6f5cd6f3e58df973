from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from retract.errors import ConfigError, FederationError, PrivacyError
from retract.federation.privacy import Identity, Masked, MaskingClient, Roster, Survivors, Terms, UnmaskingServer
from retract.federation.privacy.masks import MASK, SHARES, add_keystream, agreed, public_of

WORDS = 5000


def terms(threshold: int = 7, minimum: int = 4) -> Terms:
    return Terms(b"session", WORDS, threshold, minimum)


def plain(client: int) -> np.ndarray:
    return np.random.default_rng(client).integers(0, 2**63, WORDS, dtype=np.uint64)


def identities(n: int) -> dict[int, Identity]:
    keys = {client: Ed25519PrivateKey.generate() for client in range(n)}
    known = {client: key.public_key().public_bytes_raw() for client, key in keys.items()}
    return {client: Identity(key, known) for client, key in keys.items()}


class Sum:
    """A secure sum of n clients up to some step; `lost` say who is gone from which step on."""

    def __init__(self, n: int = 10, agreed: Terms | None = None, signed: bool = False) -> None:
        self.terms, signers = agreed or terms(), identities(n) if signed else {}
        self.clients = {u: MaskingClient(u, self.terms, identity=signers.get(u)) for u in range(n)}
        self.server, self.signed = UnmaskingServer(self.terms), signed

    def shared(self, lost: tuple[int, ...] = ()) -> Sum:
        roster = self.server.roster([client.advertise() for client in self.clients.values()])
        self.roster = roster
        sealed = [client.share(roster) for u, client in self.clients.items() if u not in lost]
        self.delivered = self.server.deliver(sealed)
        return self

    def masked(self, lost: tuple[int, ...] = ()) -> Sum:
        self.messages = {u: self.clients[u].mask(self.delivered[u], plain(u)) for u in self.delivered}
        for u, message in self.messages.items():
            if u not in lost:
                self.server.add(message)
        self.survivors = self.server.survivors()
        return self

    def total(self, lost: tuple[int, ...] = ()) -> np.ndarray:
        alive = [u for u in self.survivors.clients if u not in lost]
        confirmed = [self.clients[u].confirm(self.survivors) for u in alive] if self.signed else []
        return self.server.total([self.clients[u].unmask(self.survivors, confirmed) for u in alive])


def wanted(clients) -> np.ndarray:
    return sum((plain(u) for u in clients), np.zeros(WORDS, dtype=np.uint64))


@pytest.mark.parametrize("signed", [False, True])
def test_the_sum_is_the_plain_sum_to_the_last_bit(signed):
    assert np.array_equal(Sum(signed=signed).shared().masked().total(), wanted(range(10)))


def test_the_sum_does_not_change_who_sent_what():
    total = Sum().shared().masked()
    before = {u: message.words.copy() for u, message in total.messages.items()}
    total.total()
    assert all(np.array_equal(before[u], message.words) for u, message in total.messages.items())


@pytest.mark.parametrize("signed", [False, True])
def test_clients_that_are_lost_at_any_step_are_left_out_and_the_sum_of_the_others_is_right(signed):
    for lost in ((3,), (0, 9, 4)):
        others = [u for u in range(10) if u not in lost]
        assert np.array_equal(Sum(signed=signed).shared(lost).masked().total(), wanted(others))
        assert np.array_equal(Sum(signed=signed).shared().masked(lost).total(), wanted(others))
        assert np.array_equal(Sum(signed=signed).shared().masked().total(lost), wanted(range(10)))
    assert np.array_equal(
        Sum().shared((1,)).masked((2,)).total((3,)), wanted([u for u in range(10) if u not in (1, 2)])
    )


@given(st.lists(st.sampled_from(["stays", "stays", "stays", "shares", "masks", "answers"]), min_size=5, max_size=9))
def test_whoever_is_lost_the_sum_is_right_or_refused(fates):
    n, gone = len(fates), {step: tuple(u for u, fate in enumerate(fates) if fate == step) for step in fates}
    threshold, shared, masked = n // 2 + 1, gone.get("shares", ()), gone.get("masks", ())
    total = Sum(n, terms(threshold, 3))
    in_sum = n - len(shared) - len(masked)
    answer = in_sum - len(gone.get("answers", ()))
    if in_sum < max(threshold, 3) or answer < threshold:
        with pytest.raises(PrivacyError):
            total.shared(shared).masked(masked).total(gone.get("answers", ()))
    else:
        found = total.shared(shared).masked(masked).total(gone.get("answers", ()))
        assert np.array_equal(found, wanted(u for u, fate in enumerate(fates) if fate not in ("shares", "masks")))


def test_below_the_threshold_or_the_minimum_nothing_is_unmasked():
    lost = (0, 1, 2, 3)
    with pytest.raises(PrivacyError, match="6 clients are left and a secure sum needs 7"):
        Sum().shared(lost)
    with pytest.raises(PrivacyError, match="6 clients are left and a secure sum needs 7"):
        Sum().shared().masked(lost)
    with pytest.raises(PrivacyError, match="6 clients help to unmask a sum and 7 are needed"):
        Sum().shared().masked().total(lost)
    with pytest.raises(PrivacyError, match="needs 9"):
        Sum(agreed=terms(6, minimum=9)).shared().masked((0, 1))


def test_a_masked_update_looks_uniform_and_is_another_every_time():
    zero = np.zeros(WORDS, dtype=np.uint64)
    seen = []
    for _ in range(2):
        total = Sum(3, terms(2, 2)).shared()
        seen.append(total.clients[1].mask(total.delivered[1], zero).words)
    assert not np.array_equal(*seen)
    for words in seen:
        assert not np.array_equal(words, zero)
        counts = np.bincount(words.view(np.uint8), minlength=256)
        assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 255 + 6 * (2 * 255) ** 0.5
        ones = np.unpackbits(words.view(np.uint8)).mean()
        assert abs(ones - 0.5) < 5 * 0.5 / (64 * WORDS) ** 0.5
        assert abs(np.corrcoef(words[:-1].astype(float), words[1:].astype(float))[0, 1]) < 5 / WORDS**0.5


def test_masks_of_all_but_one_client_still_hide_it():
    """What the server has, less what all others could tell it, is the client's update under its own mask."""
    total = Sum().shared().masked()
    seen = sum((total.messages[u].words - plain(u) for u in range(1, 10)), total.messages[0].words.copy())
    gap = seen - plain(0)
    assert len(np.unique(gap)) == WORDS


def test_a_key_stream_is_chacha20s_and_is_taken_away_again():
    words = np.zeros(70_000, dtype=np.uint64)  # more than two chunks
    add_keystream(words, bytes(32), 1)
    # RFC 8439, appendix A.1, test vector 1
    assert words[:4].tobytes().hex() == "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
    assert len(np.unique(words)) == len(words)
    add_keystream(words, bytes(32), -1)
    assert not words.any()


def test_two_clients_agree_on_a_key_of_its_own_for_each_session_and_purpose():
    mine, theirs = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    keys = {agreed(mine, public_of(theirs), session, use) for session in (b"a", b"b") for use in (MASK, SHARES)}
    assert len(keys) == 4
    assert keys == {agreed(theirs, public_of(mine), session, use) for session in (b"a", b"b") for use in (MASK, SHARES)}
    assert {len(key) for key in keys} == {32}


# --- a server that lies -----------------------------------------------------------------------------------------------


def test_a_client_unmasks_one_set_of_survivors_and_no_other():
    total = Sum().shared().masked()
    client = total.clients[0]
    answer = client.unmask(total.survivors)
    assert not answer.seeds.keys() & answer.keys.keys()
    with pytest.raises(PrivacyError, match="each step once, in order"):
        client.unmask(Survivors(tuple(range(9))))
    with pytest.raises(PrivacyError, match="each step once, in order"):
        client.mask(total.delivered[0], plain(0))


@pytest.mark.parametrize(
    "survivors", [(1, 2, 3, 4, 5, 6, 7), (0, 1, 2, 3, 4, 5, 11), (0, 0, 1, 2, 3, 4, 5), (0, 1, 2, 3, 4, 5), ()]
)
def test_survivors_that_cannot_be_are_refused_by_the_client(survivors):
    total = Sum().shared().masked()
    with pytest.raises(PrivacyError, match=r"not those that secrets were shared with|clients are in the sum"):
        total.clients[0].unmask(Survivors(survivors))


def test_with_identities_two_sets_of_survivors_cannot_both_be_unmasked():
    total = Sum(signed=True).shared().masked()
    told = {u: total.survivors if u % 2 else Survivors(tuple(range(9))) for u in range(9)}
    confirmed = [total.clients[u].confirm(told[u]) for u in told]
    with pytest.raises(FederationError, match="has not its signature"):
        total.clients[0].unmask(told[0], confirmed)
    agreeing = [each for each in confirmed if told[each.client] == told[2]]
    with pytest.raises(PrivacyError, match="5 clients confirm who is in the sum and a secure sum needs 7"):
        total.clients[2].unmask(told[2], agreeing)


def _another_key(roster: Roster) -> Roster:
    return Roster((replace(roster.members[0], mask_key=os.urandom(32)), *roster.members[1:]))


def _a_stranger(roster: Roster) -> Roster:
    stranger = MaskingClient(10, terms(), identity=identities(11)[10]).advertise()
    return Roster((*roster.members, stranger))


@pytest.mark.parametrize("change", [_another_key, _a_stranger])
def test_with_identities_nobody_can_be_put_in_anothers_place(change: Callable[[Roster], Roster]):
    total = Sum(signed=True)
    roster = change(total.server.roster([client.advertise() for client in total.clients.values()]))
    with pytest.raises(FederationError, match=r"has not its signature|is not among the known ones"):
        total.clients[1].share(roster)


def test_a_roster_with_a_client_or_key_twice_or_without_oneself_is_refused():
    total = Sum()
    roster = total.server.roster([client.advertise() for client in total.clients.values()])
    twice = Roster((*roster.members[:9], replace(roster.members[0], client=9)))
    with pytest.raises(FederationError, match="a key is twice among those of a secure sum"):
        total.clients[1].share(twice)
    with pytest.raises(FederationError, match="client 2 is not among"):
        total.clients[2].share(Roster(roster.members[:2] + roster.members[3:]))
    with pytest.raises(FederationError, match="or under another's keys"):
        total.clients[0].share(_another_key(roster))


def test_a_threshold_of_half_or_less_is_refused_by_every_client():
    total = Sum(10, terms(5))
    roster = total.server.roster([client.advertise() for client in total.clients.values()])
    with pytest.raises(PrivacyError, match="5 of 10 clients are to unmask a sum: it must be more than half"):
        total.clients[0].share(roster)


def test_shares_that_were_changed_or_are_for_somebody_else_are_refused():
    total = Sum().shared()
    with pytest.raises(FederationError, match="not for it"):
        total.clients[0].mask(total.delivered[1], plain(0))
    boxes = dict(total.delivered[2].boxes)
    boxes[1], boxes[3] = boxes[3], boxes[1]
    with pytest.raises(FederationError, match="were changed on the way"):
        total.clients[2].mask(replace(total.delivered[2], boxes=boxes), plain(2))
    boxes = {**total.delivered[3].boxes, 1: b"short"}
    with pytest.raises(FederationError, match="were changed on the way"):
        total.clients[3].mask(replace(total.delivered[3], boxes=boxes), plain(3))


def test_a_key_of_small_order_is_refused():
    total = Sum()
    roster = total.server.roster([client.advertise() for client in total.clients.values()])
    with pytest.raises(FederationError, match="not a key of X25519"):
        total.clients[1].share(Roster((replace(roster.members[0], share_key=bytes(32)), *roster.members[1:])))


# --- clients that lie -------------------------------------------------------------------------------------------------


def test_a_client_that_answers_twice_or_out_of_turn_or_at_another_length_is_refused():
    total = Sum()
    keys = [client.advertise() for client in total.clients.values()]
    with pytest.raises(FederationError, match="client 0 answers twice"):
        UnmaskingServer(terms()).roster([*keys, keys[0]])
    total = Sum().shared((9,)).masked((8,))
    with pytest.raises(FederationError, match="client 1 answers twice"):
        total.server.add(total.messages[1])
    with pytest.raises(FederationError, match="after the secure sum was closed"):
        total.server.add(total.messages[8])
    with pytest.raises(FederationError, match="client 9 answers in a secure sum that it takes no part in"):
        total.server.add(Masked(9, plain(9)))
    fresh = Sum().shared()
    with pytest.raises(FederationError, match="float64 of shape"):
        fresh.server.add(Masked(0, np.zeros(WORDS)))
    with pytest.raises(FederationError, match="5,000 words was agreed on"):
        fresh.clients[0].mask(fresh.delivered[0], plain(0)[1:])


def test_a_client_that_leaves_somebody_out_of_its_shares_is_refused():
    total = Sum()
    roster = total.server.roster([client.advertise() for client in total.clients.values()])
    sealed = [client.share(roster) for client in total.clients.values()]
    boxes = {u: box for u, box in sealed[4].boxes.items() if u != 7}
    with pytest.raises(FederationError, match="client 4 has not sealed shares for each"):
        total.server.deliver([replace(each, boxes=boxes) if each.client == 4 else each for each in sealed])


def test_wrong_shares_are_noticed_and_the_sum_is_not_given():
    for part, lost in (("seeds", ()), ("keys", (5,))):
        total = Sum().shared().masked(lost)
        answers = [total.clients[u].unmask(total.survivors) for u in total.survivors.clients]
        shares = dict(getattr(answers[0], part))
        shares[5] = bytes(33)
        with pytest.raises(FederationError, match=r"client 5's (seed|key) are wrong|do not belong together"):
            total.server.total([replace(answers[0], **{part: shares}), *answers[1:]])
        total = Sum().shared().masked(lost)
        answers = [total.clients[u].unmask(total.survivors) for u in total.survivors.clients]
        with pytest.raises(FederationError, match="client 0 has sent no share of a secret of client"):
            total.server.total([replace(answers[0], **{part: {}}), *answers[1:]])


@pytest.mark.parametrize(("threshold", "minimum"), [(0, 2), (3, 1), (3, 0)])
def test_a_sum_over_nobody_or_one_is_no_setting(threshold, minimum):
    with pytest.raises(ConfigError):
        Terms(b"", 1, threshold, minimum)
