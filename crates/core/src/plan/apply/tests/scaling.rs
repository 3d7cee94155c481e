//! Applying a spec to services that an autoscaler has, and carrying out what it decides.

use super::*;
use crate::{
    plan::autoscale::{Cause, Decision, carry_out, is_asleep},
    record::MAX_SCALINGS,
};

/// From so many pods to 8.
fn bounds(min: u32) -> Autoscale {
    Autoscale {
        min,
        max: 8,
        cpu: None,
        concurrency: None,
        rps: Some(10.0),
        stabilization: std::time::Duration::from_secs(300),
        idle: std::time::Duration::from_secs(60),
    }
}

#[test]
fn an_autoscaler_keeps_its_number() {
    let mut wanted = app(SHOP);
    let service = wanted.services.get_mut(&name("web")).expect("there");
    let mut bounds = bounds(2);
    service.autoscale = Some(bounds.clone());
    let mut present = Present::default();
    take(
        &mut present,
        &try_apply(&Present::default(), &wanted).expect("good"),
    );
    assert_eq!(
        web(&present).spec.replicas,
        4,
        "what the spec says, at first"
    );
    let grown = scale(web(&present), 7)
        .expect("within bounds")
        .expect("another");
    present.services.insert(name("web"), grown);
    assert!(!try_apply(&present, &wanted).expect("good").plan.changed);
    assert!(matches!(
        scale(web(&present), 9),
        Err(VerbError::Autoscaled { .. })
    ));
    assert!(matches!(
        scale(web(&present), 1),
        Err(VerbError::Autoscaled { .. })
    ));
    bounds.max = 5;
    let service = wanted.services.get_mut(&name("web")).expect("there");
    service.autoscale = Some(bounds);
    let applied = try_apply(&present, &wanted).expect("good");
    assert_eq!(applied.services[0].spec.replicas, 5);
}

#[test]
fn a_new_revision_of_a_service_at_zero_gets_a_pod() {
    let mut wanted = app(SHOP);
    let service = wanted.services.get_mut(&name("web")).expect("there");
    service.autoscale = Some(bounds(0));
    let mut present = Present::default();
    take(
        &mut present,
        &try_apply(&Present::default(), &wanted).expect("good"),
    );
    let asleep = Decision {
        current: 4,
        replicas: 0,
        cause: Cause::Asleep,
        held: None,
        panic: false,
    };
    let mut service = web(&present).clone();
    assert_eq!(
        carry_out(
            &service,
            &Decision {
                current: 3,
                ..asleep.clone()
            },
            7
        ),
        None,
        "about another number"
    );
    service = carry_out(&service, &asleep, 7).expect("another number");
    assert_eq!(service.generation, 2);
    assert_eq!(service.status.scalings[0].message, "4 → 0: no requests");
    assert!(is_asleep(&service));
    present.services.insert(name("web"), service.clone());
    assert!(!try_apply(&present, &wanted).expect("good").plan.changed);
    let changed = wanted.services.get_mut(&name("web")).expect("there");
    changed.grants.env.insert("A".to_owned(), "B".to_owned());
    let applied = try_apply(&present, &wanted).expect("good");
    assert_eq!(applied.services[0].spec.replicas, 1);
    // Only the last decisions are kept.
    for at in 0..20 {
        let (current, replicas) = (service.spec.replicas, 1 + at as u32);
        let other = Decision {
            current,
            replicas,
            ..asleep.clone()
        };
        service = carry_out(&service, &other, at).expect("another number");
    }
    assert_eq!(service.status.scalings.len(), MAX_SCALINGS);
    assert_eq!(service.status.scalings.last().map(|it| it.at_ms), Some(19));
}
