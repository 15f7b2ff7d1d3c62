//! Values of arguments: seconds, bytes, addresses, names.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::de::{DeserializeOwned, IntoDeserializer, value::Error as ValueError};

use crate::{ids::Timestamp, transport::http::DEFAULT_PORT};

/// The coordinator that commands and workers ask, unless told otherwise.
pub(super) const DEFAULT_COORDINATOR: &str = "http://127.0.0.1:8000";

/// The longest time: no sum of two such is beyond what clocks count.
const LONGEST_SECONDS: f64 = 1e9;

/// A length of time in seconds, such as `10` or `0.2`; above zero.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds, such as 10 or 0.5".to_string())?;
    if number.is_nan() || number <= 0.0 {
        return Err("must be above 0".to_string());
    }
    // Deadlines are counted in milliseconds: less would be no time.
    if number < 0.001 {
        return Err("too short: 0.001 is the least".to_string());
    }
    if number > LONGEST_SECONDS {
        return Err(format!(
            "too long: {LONGEST_SECONDS} (31 years) is the most"
        ));
    }
    Ok(Duration::from_secs_f64(number))
}

/// A coordinator's address; the usual one if the text is empty, as that of a variable that is set to nothing.
pub(super) fn coordinator_url(text: &str) -> Result<String, Infallible> {
    let given = if text.is_empty() {
        DEFAULT_COORDINATOR
    } else {
        text
    };
    Ok(given.to_string())
}

/// A whole number from `least` to `most`. What is out of the range is told it, whatever else is wrong with it.
pub(super) fn whole(text: &str, least: u64, most: u64) -> Result<u64, String> {
    match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("not a whole number from {least} to {most}")),
    }
}

/// A whole number.
pub(super) fn count(text: &str) -> Result<usize, String> {
    whole(text, 0, usize::MAX as u64).map(|number| number as usize)
}

/// A whole number above zero.
pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    whole(text, 1, usize::MAX as u64).map(|number| number as usize)
}

/// A whole number of 64 bits.
pub(super) fn any_u64(text: &str) -> Result<u64, String> {
    whole(text, 0, u64::MAX)
}

/// A whole number of 32 bits.
pub(super) fn any_u32(text: &str) -> Result<u32, String> {
    whole(text, 0, u32::MAX.into()).map(|number| number as u32)
}

/// A whole number of 32 bits above zero.
pub(super) fn u32_above_0(text: &str) -> Result<u32, String> {
    whole(text, 1, u32::MAX.into()).map(|number| number as u32)
}

/// What is no number of bytes.
const NO_BYTES: &str =
    "not a number of bytes from 0 to 16777215TiB, such as 1048576, 16MiB or 8GiB";

/// A number of bytes: `1048576`, `64KiB`, `16MiB`, `8GiB`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return Err(NO_BYTES.to_string()),
    };
    let number: Option<u64> = digits.parse().ok();
    let bytes = number.and_then(|number| number.checked_mul(factor));
    bytes.ok_or_else(|| NO_BYTES.to_string())
}

/// A number of bytes, as [`bytes`] reads it, for a limit that lets nothing pass if it is zero.
pub(super) fn bytes_above_0(text: &str) -> Result<u64, String> {
    match bytes(text)? {
        0 => Err("must be above 0".to_string()),
        number => Ok(number),
    }
}

/// An address to listen on: `127.0.0.1:8000`, an address alone (port 8000), or a port alone (loopback).
pub(super) fn bind_address(text: &str) -> Result<SocketAddr, String> {
    let text = match text.strip_prefix("localhost") {
        // The one name that needs no look-up.
        Some(rest) => format!("127.0.0.1{rest}"),
        None => text.to_string(),
    };
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, DEFAULT_PORT));
    }
    match text.trim_start_matches(':').parse() {
        Ok(port) => Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
        Err(_) => Err(
            "not an address; give one such as 127.0.0.1:8000, 0.0.0.0, 8000 or tailscale"
                .to_string(),
        ),
    }
}

/// A value by the name that it has in a job file.
pub(super) fn by_name<T: DeserializeOwned>(name: String) -> Result<T, ValueError> {
    T::deserialize(name.into_deserializer())
}

/// A moment for people: `2026-11-28T13:37:36Z`.
pub(super) fn time(at: Timestamp) -> String {
    // Others send it: what is beyond the calendar is the epoch.
    let since = Duration::from_millis(at.0);
    let at = UNIX_EPOCH.checked_add(since).filter(|_| at.0 < LAST_MOMENT);
    humantime::format_rfc3339_seconds(at.unwrap_or(UNIX_EPOCH)).to_string()
}

/// The first moment of the year 10000, in milliseconds.
const LAST_MOMENT: u64 = 253_402_300_800_000;

/// The time of now. Compared with another machine's, it is by two clocks.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| since.as_millis() as u64))
}

/// Bytes for people: `914 B`, `39.4 kB`, `2.2 MB`.
pub(super) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    // From 999.95 on, one decimal would round up to 1000.0.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Energy for people: `12.5 J`, `39.4 kJ`, `2.2 MJ`.
pub(super) fn human_joules(joules: f64) -> String {
    const UNITS: [&str; 4] = ["J", "kJ", "MJ", "GJ"];
    let mut value = joules;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A loss or a norm for people: `0.2500`, and `3.07e27` beyond the usual sizes.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1e6 || (size < 1e-4 && size > 0.0) {
        format!("{value:.2e}")
    } else {
        format!("{value:.4}")
    }
}

/// A setting as it was given, or with an exponent if that would be very long.
pub(super) fn setting(value: f64) -> String {
    let size = value.abs();
    if size >= 1e9 || (size < 1e-9 && size > 0.0) {
        format!("{value:e}")
    } else {
        value.to_string()
    }
}

/// A fraction for people: `95.28 %`.
pub(super) fn percent(fraction: f64) -> String {
    format!("{:.2} %", fraction * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::EvaluationMode;

    #[test]
    fn times_and_sizes_are_read_and_nonsense_is_refused() {
        assert_eq!(seconds("0.2"), Ok(Duration::from_millis(200)));
        for (text, expected) in [
            ("0", "must be above 0"),
            ("-1", "must be above 0"),
            ("NaN", "must be above 0"),
            ("1e-9", "too short: 0.001 is the least"),
            ("1e300", "too long: 1000000000 (31 years) is the most"),
            ("inf", "too long: 1000000000 (31 years) is the most"),
            ("soon", "not a number of seconds, such as 10 or 0.5"),
            ("", "not a number of seconds, such as 10 or 0.5"),
        ] {
            assert_eq!(seconds(text), Err(expected.to_string()), "{text}");
        }
        for text in [
            "-1",
            "4294967296",
            "99999999999999999999",
            "many",
            "1.5",
            "",
        ] {
            let told = Err("not a whole number from 0 to 4294967295".to_string());
            assert_eq!(any_u32(text), told, "{text}");
        }
        assert_eq!((any_u32("0"), u32_above_0("1")), (Ok(0), Ok(1)));
        assert!(u32_above_0("0").is_err());
        assert_eq!(bytes_above_0("1KiB"), Ok(1024));
        assert_eq!(bytes("16777215TiB"), Ok(16_777_215 << 40));
        assert!(bytes("16777216TiB").is_err());
        assert_eq!(bytes_above_0("0KiB"), Err("must be above 0".to_string()));
        assert_eq!(bytes("1048576"), Ok(1 << 20));
        assert_eq!(bytes("16MiB"), Ok(16 << 20));
        assert_eq!(bytes("8g"), Ok(8 << 30));
        for text in ["", "GiB", "1.5GiB", "-1", "5 bananas", "99999999999999TiB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert_eq!(
            [914, 39_440, 999_999, 2_200_000].map(human_bytes),
            ["914 B", "39.4 kB", "1.0 MB", "2.2 MB"]
        );
    }

    #[test]
    fn numbers_of_any_size_are_short() {
        let values = [0.25, -2.5, 0.0, 3.066e27, 1e-7, 999_999.0, f64::NAN];
        let texts = values.map(number);
        let expected = [
            "0.2500",
            "-2.5000",
            "0.0000",
            "3.07e27",
            "1.00e-7",
            "999999.0000",
            "NaN",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn settings_are_as_they_were_given() {
        let texts = [0.1, 1e-4, 0.0, 64.0, 1e300, -2.5e-12].map(setting);
        assert_eq!(texts, ["0.1", "0.0001", "0", "64", "1e300", "-2.5e-12"]);
    }

    #[test]
    fn energy_has_the_unit_that_fits() {
        assert_eq!(
            [0.04, 12.5, 999.99, 39_440.0, 2.2e6].map(human_joules),
            ["0.0 J", "12.5 J", "1.0 kJ", "39.4 kJ", "2.2 MJ"]
        );
    }

    #[test]
    fn an_address_may_lack_its_port_or_be_a_port_alone() {
        for (text, expected) in [
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("0.0.0.0", "0.0.0.0:8000"),
            ("9000", "127.0.0.1:9000"),
            (":9000", "127.0.0.1:9000"),
            ("localhost", "127.0.0.1:8000"),
            ("localhost:9000", "127.0.0.1:9000"),
            ("::1", "[::1]:8000"),
            ("[::1]:9000", "[::1]:9000"),
        ] {
            assert_eq!(bind_address(text).unwrap().to_string(), expected, "{text}");
        }
        for text in ["", "example.org", "127.0.0.1:99999", "99999"] {
            assert!(bind_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_those_of_job_files() {
        assert_eq!(
            by_name::<EvaluationMode>("workers".to_string()).unwrap(),
            EvaluationMode::Workers
        );
        assert!(by_name::<EvaluationMode>("nobody".to_string()).is_err());
    }
}
