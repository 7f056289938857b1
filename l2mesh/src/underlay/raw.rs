//! Netlink messages as octets, where parsing all of one would fail on what a newer kernel adds.

/// Splits off a message: type, payload, what follows. `struct nlmsghdr` is length, type, flags (u16), sequence, port.
pub(super) fn message(datagram: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
    let kind = u16_at(datagram, 4)?;
    let payload = datagram.get(16..length.min(datagram.len()))?;
    let rest = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, payload, rest))
}

/// A number of this machine's byte order at an offset.
pub(super) fn u16_at(octets: &[u8], at: usize) -> Option<u16> {
    octets.get(at..)?.first_chunk().map(|chunk| u16::from_ne_bytes(*chunk))
}

/// The same with 32 bits.
pub(super) fn u32_at(octets: &[u8], at: usize) -> Option<u32> {
    octets.get(at..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}
