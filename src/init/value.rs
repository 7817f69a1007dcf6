//! Values that rules are made of, and how they are written on the command line.
//!
//! All of them end up in the text of a ruleset: nothing gets past these parsers that could be read as more than a value.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

/// Numbers from `first` to `last`, both included: ports, user ids, group ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u32,
    pub(super) last: u32,
}

/// An IP network. Bits after the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) address: IpAddr,
    pub(super) prefix: u8,
}

/// The name of a network interface, or the beginning of one with `*` at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface(String);

impl Range {
    pub(super) const fn one(number: u32) -> Self {
        Self { first: number, last: number }
    }

    pub(super) const fn contains(self, number: u32) -> bool {
        self.first <= number && number <= self.last
    }

    /// As a program writes it, with its own sign between the two.
    pub(super) fn with(self, sign: char) -> String {
        if self.first == self.last { self.first.to_string() } else { format!("{}{sign}{}", self.first, self.last) }
    }
}

/// Parses a port or a range of ports: `8080`, `9000-9010`.
pub(super) fn ports(text: &str) -> Result<Range, String> {
    let range = ids(text).map_err(|_cause| format!("{text:?} is no port: write 8080 or 9000-9010"))?;
    let valid = range.first > 0 && range.last <= u32::from(u16::MAX);
    valid.then_some(range).ok_or_else(|| format!("{text:?}: ports are from 1 to 65535"))
}

/// Parses a number or a range of numbers: user or group ids.
pub(super) fn ids(text: &str) -> Result<Range, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |part: &str| part.trim().parse::<u32>().ok();
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok(Range { first, last }),
        (Some(_), Some(_)) => Err(format!("{text:?}: the first number is above the last")),
        _ => Err(format!("{text:?} is no number: write 1000 or 1000-1999")),
    }
}

/// Parses a duration: `500ms`, `30s`, `2m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => 0,
    };
    let number = number.parse::<u32>().ok().filter(|_| milliseconds > 0);
    let number = number.ok_or_else(|| format!("{text:?} is no duration: write it like 500ms, 30s or 2m"))?;
    Ok(Duration::from_millis(u64::from(number) * milliseconds))
}

impl Network {
    /// RFC 4291, section 2.5.6.
    pub(super) const LINK_LOCAL: Self =
        Self { address: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), prefix: 10 };

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let bits = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        address.is_ipv4() == self.address.is_ipv4()
            && self.prefix <= bits
            && masked(address, self.prefix) == self.address
    }

    /// The first address of a host in it; its only address when it has but one.
    pub(super) fn second_address(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) if self.prefix < 32 => Ipv4Addr::from_bits(address.to_bits() | 1).into(),
            IpAddr::V6(address) if self.prefix < 128 => Ipv6Addr::from_bits(address.to_bits() | 1).into(),
            address => address,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is no network: write 10.0.0.0/8, fd00::/8 or one address");
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_cause| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), |prefix| prefix.parse().map_err(|_cause| wrong()))?;
        if prefix > bits {
            return Err(wrong());
        }
        Ok(Self { address: masked(address, prefix), prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix.into())).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

impl Interface {
    /// The loopback interface, which every network namespace has.
    pub(super) fn loopback() -> Self {
        Self("lo".to_owned())
    }

    /// As a program writes it, with its own sign for "whatever follows".
    pub(super) fn with(&self, wildcard: char) -> String {
        match self.0.strip_suffix('*') {
            Some(beginning) => format!("{beginning}{wildcard}"),
            None => self.0.clone(),
        }
    }
}

impl FromStr for Interface {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.strip_suffix('*').unwrap_or(text);
        // The kernel's limit is 15 bytes (IFNAMSIZ); it allows more signs, but nobody uses them.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@');
        if name.is_empty() || text.len() > 15 || name.starts_with('-') || !name.chars().all(plain) {
            return Err(format!("{text:?} is no interface: write eth1, or veth* for all that begin so"));
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_or_ranges() {
        assert_eq!(ports("80"), Ok(Range::one(80)));
        assert_eq!(ports("9000-9010"), Ok(Range { first: 9000, last: 9010 }));
        for wrong in ["", "0", "65536", "http", "5-4", "1-", "-1", "1-2-3", "80;", "1 2"] {
            assert!(ports(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn networks_lose_the_bits_behind_their_prefix() {
        for (text, expected) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("10.1.2.3/0", "0.0.0.0/0"),
            ("fd00:1::5/16", "fd00::/16"),
            ("::1", "::1/128"),
            ("1::/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), expected);
        }
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0/8", "a/8", "10.0.0.0/8/8", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_network_contains_only_its_own_addresses() {
        let network: Network = "127.77.0.0/16".parse().unwrap();
        assert!(network.contains("127.77.3.4".parse().unwrap()));
        assert!(!network.contains("127.78.0.1".parse().unwrap()));
        assert!(!network.contains("::1".parse().unwrap()));
        assert!("0.0.0.0/0".parse::<Network>().unwrap().contains("1.2.3.4".parse().unwrap()));
    }

    #[test]
    fn interfaces_cannot_smuggle_in_rules() {
        assert_eq!("veth*".parse::<Interface>().unwrap().with('+'), "veth+");
        assert_eq!("eth0.5".parse::<Interface>().unwrap().with('+'), "eth0.5");
        for wrong in ["", "*", "a b", "lo\" accept", "-j", "a;b", "0123456789abcdef", "a\nb", "a*b"] {
            assert!(wrong.parse::<Interface>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["", "30", "s", "1h", "-1s", "99999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
