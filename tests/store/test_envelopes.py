from hypothesis import given
from hypothesis import strategies as st

from sendback.mail.address import Address
from sendback.mail.envelope import (
    Client,
    Envelope,
    Notify,
    OriginalRecipient,
    Recipient,
    Ret,
    ReversePath,
)
from sendback.store.messages.envelopes import envelope_from_json, envelope_to_json

_text = st.text(max_size=20)
_address = st.builds(Address, _text, _text)
_envelopes = st.builds(
    Envelope,
    client=st.builds(Client, _text, _text, st.one_of(st.none(), _text)),
    reverse_path=st.builds(ReversePath, st.one_of(st.none(), _address)),
    recipients=st.lists(
        st.builds(
            Recipient,
            _address,
            st.frozensets(st.sampled_from(Notify)),
            st.one_of(st.none(), st.builds(OriginalRecipient, _text, _text)),
        ),
        max_size=3,
    ).map(tuple),
    ret=st.one_of(st.none(), st.sampled_from(Ret)),
    envelope_id=st.one_of(st.none(), _text),
    smtputf8=st.booleans(),
    body_8bit=st.booleans(),
)


@given(_envelopes)
def test_reading_the_json_of_an_envelope_returns_an_equal_one(envelope):
    assert envelope_from_json(envelope_to_json(envelope)) == envelope
