use super::*;
use crate::io::Address;
use crate::plan::Protocol;

/// An endpoint of a test.
#[derive(Clone)]
struct Given {
    spec: EndpointSpec,
    status: EndpointStatus,
    usable_for: Option<Duration>,
}

fn given(index: usize) -> Given {
    let address = ([10, 0, 0, index as u8], 80).into();
    Given {
        spec: EndpointSpec {
            name: format!("10.0.0.{index}:80").into(),
            address: Address::Ip(address),
            protocol: Protocol::Http1,
            weight: 1,
            state: EndpointState::Ready,
            backup: false,
            priority: 0,
            connections_max: None,
            requests_max: None,
            zone: None,
            tls_name: None,
        },
        status: EndpointStatus::default(),
        usable_for: None,
    }
}

/// Endpoints of these priorities, the first `down` of each of them down.
fn priorities(counts: &[(usize, usize)]) -> Vec<Given> {
    let mut all = Vec::new();
    for (&(count, down), priority) in counts.iter().zip(0..) {
        for at in 0..count {
            let mut each = given(all.len());
            each.spec.priority = priority;
            if at < down {
                each.status.health = EndpointHealth::Down;
            }
            all.push(each);
        }
    }
    all
}

fn select(all: &[Given], panic_percent: u32) -> UsableEndpoints {
    let candidates: Vec<_> = all
        .iter()
        .map(|each| Candidate {
            spec: &each.spec,
            status: each.status,
            is_checked: false,
            usable_for: each.usable_for,
        })
        .collect();
    UsableEndpoints::select(&candidates, Some(Duration::from_secs(30)), panic_percent)
}

/// The percentage of requests of each endpoint.
fn shares(all: &[Given]) -> Vec<u64> {
    let usable = select(all, 50);
    let sum: u64 = usable.endpoints.iter().map(|each| each.weight).sum();
    let mut shares = vec![0; all.len()];
    for each in &usable.endpoints {
        shares[each.index as usize] = (each.weight * 100 + sum / 2) / sum;
    }
    shares
}

#[test]
fn equal_endpoints_have_weight_one() {
    let usable = select(&priorities(&[(3, 0)]), 50);
    assert!(usable.endpoints.iter().all(|each| each.weight == 1));
    assert!(!usable.is_panic && !usable.is_ramping);
}

#[test]
fn a_priority_overflows_when_less_than_a_hundred_of_a_hundred_and_forty_are_healthy() {
    assert_eq!(
        shares(&priorities(&[(4, 1), (2, 0)])),
        [0, 33, 33, 33, 0, 0]
    );
    // Half are healthy: they carry 1.4 x 50 %.
    assert_eq!(
        shares(&priorities(&[(4, 2), (2, 0)])),
        [0, 0, 35, 35, 15, 15]
    );
    assert_eq!(shares(&priorities(&[(2, 2), (2, 0)])), [0, 0, 50, 50]);
    // 70 % and 70 % are more than needed: the second fills the first up.
    assert_eq!(
        shares(&priorities(&[(2, 1), (2, 1), (2, 0)])),
        [0, 70, 0, 30, 0, 0]
    );
}

#[test]
fn a_backup_waits_until_all_others_are_down() {
    let mut all = priorities(&[(2, 1), (1, 1)]);
    all[2].spec.backup = true;
    all[2].status = EndpointStatus::default();
    all[2].spec.priority = 0;
    assert_eq!(shares(&all), [0, 100, 0]);
    all[1].status.is_ejected = true;
    let usable = select(&all, 50);
    assert!(usable.endpoints[..] == select(&all[..], 0).endpoints[..] && !usable.is_panic);
    assert_eq!(shares(&all), [0, 0, 100]);
    // A backup that is down is no help.
    all[2].status.health = EndpointHealth::Down;
    assert_eq!(shares(&all), [50, 50, 0]);
}

#[test]
fn panic_ignores_health_only_when_no_priority_has_enough() {
    let one_of_three = priorities(&[(3, 2)]);
    assert!(select(&one_of_three, 50).is_panic);
    assert_eq!(shares(&one_of_three), [33, 33, 33]);
    assert!(!select(&one_of_three, 33).is_panic);
    assert!(!select(&one_of_three, 0).is_panic);
    assert!(!select(&priorities(&[(3, 2), (2, 1)]), 50).is_panic);
    let none = priorities(&[(2, 2)]);
    assert!(select(&none, 1).is_panic);
    assert!(select(&none, 0).endpoints.is_empty(), "\"0%\" never panics");
}

#[test]
fn the_administrator_is_obeyed_in_a_panic_too() {
    let mut all = priorities(&[(4, 4)]);
    all[0].spec.state = EndpointState::Maintenance;
    all[1].spec.state = EndpointState::Drain;
    all[2].spec.weight = 0;
    assert_eq!(shares(&all), [0, 0, 0, 100]);
    all[3].spec.weight = 0;
    assert!(select(&all, 50).endpoints.is_empty());
}

#[test]
fn slow_start_begins_with_a_tenth_and_grows_evenly() {
    let mut all = priorities(&[(2, 0)]);
    for (seconds, share) in [(0, 9), (3, 9), (15, 33), (30, 50), (99, 50)] {
        all[0].usable_for = Some(Duration::from_secs(seconds));
        assert_eq!(shares(&all)[0], share, "after {seconds} s");
        assert_eq!(select(&all, 50).is_ramping, seconds < 30);
    }
    all[0].status.is_on_trial = true;
    assert_eq!(shares(&all)[0], 9);
}

#[test]
fn the_largest_upstreams_do_not_overflow() {
    let mut all: Vec<_> = (0..4_096).map(|_| given(1)).collect();
    for (each, at) in all.iter_mut().zip(0u32..) {
        each.spec.weight = 65_535 - at % 7;
        each.spec.priority = at % 3;
        if at % 2 == 0 {
            each.status.health = EndpointHealth::Down;
        }
    }
    let usable = select(&all, 10);
    let sum: u128 = usable
        .endpoints
        .iter()
        .map(|each| u128::from(each.weight))
        .sum();
    assert!(usable.endpoints.len() > 1_000 && sum < u128::from(u64::MAX));
}
