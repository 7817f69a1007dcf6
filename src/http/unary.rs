//! A message alone in its body, as unary gRPC calls have it (gRPC over HTTP/2, Length-Prefixed-Message).

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message;

/// Whether the message is compressed, and its length.
const PREFIX: usize = 5;

/// The body that carries `message`, not compressed.
pub fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    bytes.put_slice(&message.encode_to_vec());
    bytes.freeze()
}

/// The message in a whole body. `None`: it is not one, or it is compressed, which nobody asked for.
pub fn unframe<M: Message + Default>(body: &[u8]) -> Option<M> {
    let (prefix, message) = body.split_at_checked(PREFIX)?;
    let (compressed, length) = prefix.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    let is_whole = *compressed == 0 && usize::try_from(length).ok()? == message.len();
    is_whole.then(|| M::decode(message).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use pillion_wire::xds::UInt32Value;

    use super::*;

    #[test]
    fn a_message_is_read_only_when_it_is_whole_and_alone() {
        let message = UInt32Value { value: 7 };
        let whole = frame(&message);
        assert_eq!(whole, [0, 0, 0, 0, 2, 8, 7].as_slice());
        assert_eq!(unframe(&whole), Some(message));
        assert_eq!(unframe(&[0; 5]), Some(UInt32Value::default()), "an empty message is one");
        for broken in [
            &[1, 0, 0, 0, 2, 8, 7][..],
            &[0, 0, 0, 0, 3, 8, 7],
            &[0, 0, 0, 0, 1, 8, 7],
            &[0, 0, 0, 0, 1, 0xff],
            &[0, 0, 0],
            &[],
        ] {
            assert_eq!(unframe::<UInt32Value>(broken), None, "{broken:?}");
        }
    }
}
