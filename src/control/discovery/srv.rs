//! SRV records (RFC 2782) as endpoints.

use std::collections::HashSet;

use weir_config::limits::PRIORITY_MAX;
use weir_config::{Endpoint, EndpointAddress, Scheme};

use super::dns::SrvRecord;
use super::server_list::bounded;

/// The endpoints that SRV records name. A target that occurs twice with one port is one endpoint, that of the most
/// preferred record.
///
/// # Errors
/// There are none, or too many.
pub(super) fn endpoints(
    mut records: Vec<SrvRecord>,
    scheme: Scheme,
) -> Result<Vec<Endpoint>, String> {
    if records.iter().any(|record| record.target.is_empty()) {
        return Err("the service does not exist here: the target of its record is `.`".to_owned());
    }
    records.sort_by(|one, other| {
        let key = |record: &SrvRecord| (record.priority, record.target.clone(), record.port);
        key(one)
            .cmp(&key(other))
            .then(other.weight.cmp(&one.weight))
    });
    let mut endpoints = Vec::<Endpoint>::with_capacity(records.len());
    let mut known = HashSet::with_capacity(records.len());
    let (mut priority, mut last) = (0, None);
    for record in records {
        if record.port == 0 {
            return Err(format!("the record for {} has port 0", record.target));
        }
        if last.is_some_and(|last| last != record.priority) {
            priority += 1;
        }
        last = Some(record.priority);
        if priority > PRIORITY_MAX {
            return Err(format!("it has more than {} priorities", PRIORITY_MAX + 1));
        }
        let address = EndpointAddress::Name {
            host: record.target,
            port: record.port,
        };
        if known.insert(address.clone()) {
            endpoints.push(Endpoint {
                // Beside others, a record of weight 0 has a small chance of being chosen.
                weight: u32::from(record.weight.max(1)),
                priority,
                ..scheme.applied_to(address.into())
            });
        }
    }
    bounded(endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(priority: u16, weight: u16, target: &str) -> SrvRecord {
        SrvRecord {
            priority,
            weight,
            port: 80,
            target: target.to_owned(),
        }
    }

    fn read(records: &[SrvRecord]) -> Result<Vec<(String, u32, u32)>, String> {
        let shown = |one: Endpoint| (one.to_string(), one.priority, one.weight);
        let found = endpoints(records.to_vec(), Scheme::Http)?;
        Ok(found.into_iter().map(shown).collect())
    }

    #[test]
    fn priorities_are_numbered_in_their_order_and_weights_kept() {
        let records = [
            record(100, 0, "c"),
            record(10, 60, "b"),
            record(10, 40, "a"),
            record(65_535, 65_535, "d"),
            record(100, 5, "a"),
        ];
        let wanted = [
            ("a:80", 0, 40),
            ("b:80", 0, 60),
            ("c:80", 1, 1),
            ("d:80", 2, 65_535),
        ];
        let wanted = wanted.map(|(name, priority, weight)| (name.to_owned(), priority, weight));
        assert_eq!(read(&records).unwrap(), wanted);
    }

    #[test]
    fn the_order_of_records_does_not_matter() {
        let mut records: Vec<_> = (0..50_u16)
            .map(|n| record(n % 7, n % 3, &format!("host{}", n % 40)))
            .collect();
        let wanted = read(&records).unwrap();
        for _ in 0..200 {
            fastrand::shuffle(&mut records);
            assert_eq!(read(&records).unwrap(), wanted);
        }
    }

    #[test]
    fn records_that_name_no_endpoint_are_refused() {
        let zero = SrvRecord {
            port: 0,
            ..record(0, 0, "a")
        };
        let many: Vec<_> = (0..200).map(|n| record(n, 1, &format!("h{n}"))).collect();
        for (records, why) in [
            (vec![record(0, 0, "")], "does not exist here"),
            (vec![zero], "port 0"),
            (Vec::new(), "no endpoint"),
            (many, "more than 128 priorities"),
        ] {
            let error = read(&records).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
