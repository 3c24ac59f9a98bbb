mod access_log;
mod endpoint_troubles;
mod metrics;

use std::net::IpAddr;

use super::*;

/// A plan and its endpoints, both with this epoch.
pub(super) fn plan(epoch: u64, text: &str) -> (Plan, EndpointSets) {
    let config = weir_config::parse("test.toml", text)
        .expect("a valid file")
        .0;
    let mut plan = Plan::compile(&config).expect("a valid plan");
    let mut endpoints =
        EndpointSets::compile(&config, &|_, _| Ok(Vec::new())).expect("valid endpoints");
    (plan.epoch, endpoints.epoch) = (epoch, epoch);
    (plan, endpoints)
}

/// Two routes to two upstreams. `flip` reverses their order, so that all ids differ.
fn two(epoch: u64, flip: bool) -> (Plan, EndpointSets) {
    let routes = [
        "[[route]]\nname = \"a\"\nmatch = \"/a\"\nto = \"one\"\n",
        "[[route]]\nname = \"b\"\nmatch = \"/b\"\nto = \"two\"\n",
    ];
    let upstreams = [
        "one = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n",
        "two = [\"10.0.0.3:80\"]\n",
    ];
    let order = if flip { [1, 0] } else { [0, 1] };
    let [a, b] = order.map(|i| routes[i]);
    let [one, two] = order.map(|i| upstreams[i]);
    let text = format!("[listen.\"127.0.0.1:8080\"]\n[upstream]\n{one}{two}{a}{b}");
    plan(epoch, &text)
}

pub(super) fn event(route: u32) -> ExchangeEvent<'static> {
    ExchangeEvent {
        time_ms: 1_795_339_800_125,
        id: RequestId(1, 2),
        given_id: b"",
        client: Some(IpAddr::from([192, 0, 2, 7])),
        method: b"GET",
        host: b"example.com",
        path: b"/a",
        query: Some(b"x=1"),
        version: "HTTP/1.1",
        tls: None,
        sni: b"",
        client_cert: b"",
        subject: b"",
        user_agent: b"curl/8.9",
        referer: b"https://example.com/",
        fields: b"",
        status: 200,
        grpc_status: None,
        bytes_in: 10,
        bytes_out: 1_000,
        listener: ListenerId(0),
        route: Some(RouteId(route)),
        upstream: Some(UpstreamId(route)),
        endpoint: Some(0),
        attempts: 1,
        total_us: 12_345,
        queue_us: 0,
        connect_us: 250,
        first_byte_us: 9_000,
        errno: 0,
        reason: None,
        policy: None,
        would_refuse: None,
    }
}

fn page(obs: &Obs) -> String {
    let mut page = MetricsPage::default();
    obs.metrics(&mut page);
    page.finish()
}

/// The value of a series, named exactly as on the page.
fn series(page: &str, name: &str) -> Option<u64> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    page.lines().find_map(value)
}

#[test]
fn ids_are_32_digits() {
    let id = RequestId(0xab, 0x0123_4567_89ab_cdef);
    let mut hex = [0; 32];
    id.write_hex(&mut hex);
    assert_eq!(&hex, b"00000000000000ab0123456789abcdef");
    assert_eq!(id.to_string().as_bytes(), hex);
}

#[test]
fn counters_survive_a_reload_by_name() {
    let (old, new) = (two(1, false), two(2, true));
    let (obs, mut cores) = Obs::start(2, (&old.0, &old.1), None).unwrap();
    cores[0].exchange(&old.0, &old.1, &event(0));
    cores[1].exchange(&old.0, &old.1, &event(0));
    cores[1].exchange(&old.0, &old.1, &event(1));
    let before = page(&obs);
    assert_eq!(
        series(
            &before,
            "weir_route_exchanges_total{route=\"a\",class=\"2xx\"}"
        ),
        Some(2)
    );
    assert_eq!(
        series(
            &before,
            "weir_route_exchanges_total{route=\"b\",class=\"2xx\"}"
        ),
        Some(1)
    );

    obs.prepare(&new.0, &new.1);
    // Only the first core has the new plan. An exchange of each plan ends on both cores.
    cores[0].plan_changed(&new.0, &new.1);
    for core in &cores {
        core.exchange(&new.0, &new.1, &event(1));
        core.exchange(&old.0, &old.1, &event(1));
    }
    let after = page(&obs);
    assert_eq!(
        series(
            &after,
            "weir_route_exchanges_total{route=\"a\",class=\"2xx\"}"
        ),
        Some(4)
    );
    assert_eq!(
        series(
            &after,
            "weir_route_exchanges_total{route=\"b\",class=\"2xx\"}"
        ),
        Some(3)
    );
    let endpoint = "{upstream=\"one\",endpoint=\"10.0.0.1:80\",class=\"2xx\"}";
    assert_eq!(
        series(&after, &format!("weir_endpoint_exchanges_total{endpoint}")),
        Some(4)
    );
    assert_eq!(series(&after, "weir_core_plan_epoch{core=\"0\"}"), Some(2));
    assert_eq!(series(&after, "weir_core_plan_epoch{core=\"1\"}"), Some(1));
    obs.stop();
}

#[test]
fn a_reload_stops_counting_removed_parts() {
    let old = two(1, false);
    let new = plan(
        2,
        "[listen.\"127.0.0.1:9090\"]\n[[route]]\nname = \"c\"\nmatch = \"/*\"\nrespond = { status = 204 }\n",
    );
    let (obs, mut cores) = Obs::start(1, (&old.0, &old.1), None).unwrap();
    obs.prepare(&new.0, &new.1);
    cores[0].plan_changed(&new.0, &new.1);
    cores[0].exchange(&old.0, &old.1, &event(1));
    cores[0].upstream_closed(UpstreamId(7), 9);
    cores[0].connection_closed(ListenerId(7));
    assert_eq!(obs.ended_core(), None);
    let page = page(&obs);
    assert!(!page.contains("route=\"b\""));
    assert_eq!(
        series(
            &page,
            "weir_route_exchanges_total{route=\"c\",class=\"2xx\"}"
        ),
        Some(0)
    );
    assert_eq!(
        series(&page, "weir_core_exchanges_total{core=\"0\"}"),
        Some(1)
    );
    obs.stop();
}

#[test]
fn the_end_of_a_core_is_detected() {
    let plan = two(1, false);
    let (obs, mut cores) = Obs::start(3, (&plan.0, &plan.1), None).unwrap();
    let core = cores.remove(1);
    let thread = thread::spawn(move || {
        let _core = core;
        std::panic::resume_unwind(Box::new("a bug"));
    });
    assert!(thread.join().is_err());
    assert_eq!(obs.ended_core(), Some(1));
    obs.stop();
}

#[test]
fn a_core_behind_control_counts_by_its_own_ids() {
    let (old, new, newer) = (two(1, false), two(2, true), two(3, false));
    let (obs, mut cores) = Obs::start(1, (&old.0, &old.1), None).unwrap();
    obs.prepare(&new.0, &new.1);
    obs.prepare(&newer.0, &newer.1);
    cores[0].plan_changed(&new.0, &new.1);
    // Upstream 1 is `one` in the plan that the core runs, and `two` in the one that it does not have yet.
    cores[0].upstream_connected(UpstreamId(1), 1);
    let connected = "weir_endpoint_connections_total{upstream=\"one\",endpoint=\"10.0.0.2:80\"}";
    assert_eq!(series(&page(&obs), connected), Some(1));
    cores[0].plan_changed(&newer.0, &newer.1);
    assert_eq!(series(&page(&obs), connected), Some(1));
    obs.stop();
}

#[test]
fn a_core_on_its_own_follows_its_plan() {
    let (old, new) = (two(1, false), two(2, true));
    let mut core = CoreObs::detached(&old.0, &old.1);
    core.exchange(&old.0, &old.1, &event(0));
    core.plan_changed(&new.0, &new.1);
    core.exchange(&new.0, &new.1, &event(1));
    let shared = [core.shared.clone()];
    let mut page = MetricsPage::default();
    super::metrics::render(&shared, &mut page);
    assert_eq!(
        series(
            &page.finish(),
            "weir_route_exchanges_total{route=\"a\",class=\"2xx\"}"
        ),
        Some(2)
    );
}
