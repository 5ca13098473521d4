//! Environments whose images are written in one commit, before their turns: nobody else may take it to the cluster.

use slipway_check::Faults;

use super::{
    super::{Environment, Strategy},
    Order, Seen, Service,
};

/// Checks `written_with` of all environments.
pub(super) fn check(services: &[Service], seen: &[Seen], order: &Order, faults: &mut Faults) {
    for one in seen {
        let Some(name) = &one.environment.written_with else {
            continue;
        };
        let mut of_service = seen.iter().filter(|other| other.service == one.service);
        let leader = of_service.find(|other| other.environment.name == *name);
        let service = services.iter().find(|service| service.name == one.service);
        let own = service.and_then(|service| service.environment(one.environment.name.as_str()).ok());
        let refusal = match leader {
            None => Some(format!("{name} is not one of this service's environments")),
            Some(leader) => refusal(&one.environment, &leader.environment, order),
        };
        let neighbour = own.and_then(|own| own.shared.services().next());
        let refusal = refusal.or_else(|| {
            neighbour.map(|neighbour| {
                format!(
                    "service {neighbour} shares this environment's target or folder, so its deployments would take the commit along before this one's turn: leave it out, or give each its own"
                )
            })
        });
        if let Some(refusal) = refusal {
            faults.add(format!("{}.written_with", one.path), refusal);
        }
    }
}

/// Why one environment cannot be written together with another.
fn refusal(own: &Environment, leader: &Environment, order: &Order) -> Option<String> {
    let name = &leader.name;
    if order.place(name) >= order.place(&own.name) {
        return Some(format!(
            "{name} does not come before {} in the order of promotion: name an earlier environment",
            own.name
        ));
    }
    if let Some(first) = &leader.written_with {
        return Some(format!("{name} is itself written with {first}: write {first}"));
    }
    let (Some(here), Some(there)) = (&own.gitops, &leader.gitops) else {
        return Some("both environments need gitops: leave it out".to_owned());
    };
    if here.strategy == Strategy::Marker || there.strategy == Strategy::Marker {
        return Some("a marker commit writes no image: leave it out".to_owned());
    }
    let same = here.repository == there.repository && here.branch == there.branch && here.mode == there.mode;
    (!same).then(|| {
        format!("{name} is written to another repository or branch, or in another mode: one commit cannot be in both")
    })
}
