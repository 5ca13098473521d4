//! Which addresses a check may connect to. The catalog says where checks go, and this service runs inside the network:
//! without restrictions a check could read a cloud's metadata, which hands out credentials, or talk to anything that
//! listens only on this machine.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de::Error as _};

/// Ranges that are allowed although they would be refused: `checks.allow` of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Allow(Vec<IpNet>);

impl Allow {
    fn has(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.contains(&address))
    }
}

impl<'de> Deserialize<'de> for Allow {
    /// CIDR blocks, or single addresses.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ranges = Vec::<String>::deserialize(deserializer)?;
        let range = |text: &String| {
            let single = || text.parse::<IpAddr>().map(IpNet::from);
            text.parse::<IpNet>().or_else(|_| single()).map_err(|_| {
                let text: String = text.chars().take(60).collect();
                D::Error::custom(format!(
                    "{text:?} is not a range: write it like 127.0.0.0/8 or ::1/128"
                ))
            })
        };
        ranges.iter().map(range).collect::<Result<_, _>>().map(Self)
    }
}

/// Why an address is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) address: IpAddr,
    /// Such as `a link-local address`.
    pub(crate) what: &'static str,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is {}, which checks may not connect to: if this one may, add it to checks.allow of deploy-svc's \
             configuration",
            self.address, self.what
        )
    }
}

/// Whether a check may connect to `address`. Forms of IPv6 that carry an IPv4 address count as both.
///
/// # Errors
/// [`Refused`], unless a range of `allow` contains the address in either form.
pub(crate) fn vet(address: IpAddr, allow: &Allow) -> Result<(), Refused> {
    let inner = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => embedded(v6),
    };
    let forms = || std::iter::once(address).chain(inner.map(IpAddr::V4));
    if forms().any(|form| allow.has(form)) {
        return Ok(());
    }
    match forms().find_map(special) {
        Some(what) => Err(Refused { address, what }),
        None => Ok(()),
    }
}

/// Metadata services of the clouds, in addition to the link-local 169.254.169.254 that most of them have.
const METADATA: [IpAddr; 6] = [
    // Amazon EC2, and credentials of pods on EKS.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    // Google Compute Engine.
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    // Alibaba Cloud.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    // Oracle Cloud, classic.
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    // Azure's WireServer.
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

fn special(address: IpAddr) -> Option<&'static str> {
    if METADATA.contains(&address) {
        return Some("a cloud's metadata address");
    }
    match address {
        IpAddr::V4(v4) => match v4.octets() {
            [169, 254, 169, 254] => Some("a cloud's metadata address"),
            [169, 254, ..] => Some("a link-local address"),
            [127, ..] => Some("a loopback address"),
            // "This network" (RFC 1122): Linux takes 0.0.0.0 for this machine.
            [0, ..] => Some("an unspecified address"),
            [224..=239, ..] => Some("a multicast address"),
            [240..=255, ..] => Some("a reserved address"),
            _ => None,
        },
        IpAddr::V6(v6) => match v6.segments() {
            [0, 0, 0, 0, 0, 0, 0, 1] => Some("a loopback address"),
            [0, 0, 0, 0, 0, 0, 0, 0] => Some("an unspecified address"),
            [first, ..] if first & 0xffc0 == 0xfe80 => Some("a link-local address"),
            [first, ..] if first & 0xff00 == 0xff00 => Some("a multicast address"),
            _ => None,
        },
    }
}

/// The IPv4 address within an IPv6 one: mapped (`::ffff:0:0/96`), compatible (`::/96`), translated (`::ffff:0:0:0/96`),
/// NAT64 (`64:ff9b::/96`, RFC 6052) and 6to4 (`2002::/16`). `::` and `::1` do not carry one.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::{Allow, vet};

    fn allow(ranges: &str) -> Allow {
        serde_json::from_str(ranges).unwrap()
    }

    #[test]
    fn addresses_are_refused_by_what_they_are() {
        for (address, what) in [
            ("169.254.169.254", "metadata"),
            ("169.254.170.2", "link-local"),
            ("169.254.0.1", "link-local"),
            ("fe80::1", "link-local"),
            ("febf:ffff::1", "link-local"),
            ("fd00:ec2::254", "metadata"),
            ("fd00:ec2::23", "metadata"),
            ("fd20:ce::254", "metadata"),
            ("100.100.100.200", "metadata"),
            ("192.0.0.192", "metadata"),
            ("168.63.129.16", "metadata"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("::1", "loopback"),
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("::", "unspecified"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.250", "multicast"),
            ("ff02::1", "multicast"),
            ("255.255.255.255", "reserved"),
            ("240.0.0.1", "reserved"),
            // The same in another notation.
            ("::ffff:169.254.169.254", "metadata"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:0.0.0.0", "unspecified"),
            ("::169.254.169.254", "metadata"),
            ("::127.0.0.1", "loopback"),
            ("::ffff:0:169.254.169.254", "metadata"),
            ("64:ff9b::a9fe:a9fe", "metadata"),
            ("2002:7f00:1::", "loopback"),
            ("::ffff:100.100.100.200", "metadata"),
        ] {
            let refused = vet(address.parse().unwrap(), &Allow::default()).unwrap_err();
            assert!(refused.what.contains(what), "{address}: {refused}");
            let words = refused.to_string();
            assert!(words.contains("checks.allow"), "{words}");
        }
        for address in [
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "100.100.100.201",
            "8.8.8.8",
            "169.253.255.255",
            "169.255.0.0",
            "1.0.0.0",
            "223.255.255.255",
            "128.0.0.1",
            "fd00::1",
            "fd00:ec2::255",
            "2001:db8::1",
            "fec0::1",
            "fe7f::1",
            "::ffff:10.0.0.1",
            "64:ff9b::808:808",
        ] {
            vet(address.parse().unwrap(), &Allow::default()).unwrap();
        }
    }

    #[test]
    fn the_configuration_opens_what_it_names_and_no_more() {
        let open = allow(r#"["127.0.0.0/8", "::1", "169.254.20.0/24", "::ffff:0.0.0.0/128"]"#);
        for address in [
            "127.0.0.1",
            "::ffff:127.9.9.9",
            "::1",
            "169.254.20.10",
            "::ffff:0.0.0.0",
        ] {
            vet(address.parse().unwrap(), &open).unwrap();
        }
        for address in ["169.254.169.254", "0.0.0.0", "fe80::1", "::2%"] {
            if let Ok(address) = address.parse() {
                vet(address, &open).unwrap_err();
            }
        }
        for wrong in [
            r#"["localhost"]"#,
            r#"["10.0.0.0/33"]"#,
            r#"["10.0.0.0/"]"#,
            r#"[""]"#,
        ] {
            let error = serde_json::from_str::<Allow>(wrong).unwrap_err().to_string();
            assert!(error.contains("is not a range"), "{error}");
        }
    }

    proptest! {
        /// What is refused as IPv4 is refused in every IPv6 form that leads to it.
        #[test]
        fn no_form_of_an_address_gets_around(bits: u32) {
            let v4 = Ipv4Addr::from(bits);
            let refused = vet(IpAddr::V4(v4), &Allow::default()).is_err();
            let mut forms = vec![v4.to_ipv6_mapped()];
            // `::` and `::1` are addresses of their own.
            if bits > 1 {
                #[allow(deprecated, reason = "deprecated as an address, understood by kernels all the same")]
                forms.push(v4.to_ipv6_compatible());
            }
            for v6 in forms {
                prop_assert_eq!(vet(IpAddr::V6(v6), &Allow::default()).is_err(), refused, "{}", v6);
            }
        }
    }
}
