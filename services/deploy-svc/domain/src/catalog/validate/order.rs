//! What an environment must come after, and the related keys that are not supported yet.

use slipway_check::Faults;
use slipway_model::Name;

use super::{
    super::file::{FileEnvironment, Reserved},
    Order, duplicates,
};

/// A required environment must belong to the same service, and be earlier in the order of promotion.
pub(super) fn check_requires(
    environment: &FileEnvironment,
    path: &str,
    names: &[Name],
    order: &Order,
    faults: &mut Faults,
) {
    let own = &environment.name;
    let path_of = |index| format!("{path}.requires[{index}]");
    duplicates(&environment.requires, &format!("{path}.requires"), faults);
    for (index, name) in environment.requires.iter().enumerate() {
        let known = |name: &Name| order.place(name).filter(|_| names.contains(name));
        let fault = match (known(name), order.place(own)) {
            _ if name == own => format!("{name} is this environment itself: leave it out"),
            (None, _) => {
                let known: Vec<&str> = names.iter().map(Name::as_str).collect();
                format!(
                    "{name} is not one of this service's environments: {}",
                    known.join(", ")
                )
            }
            (Some(earlier), Some(here)) if earlier > here => format!(
                "{name} comes after {own} in the order of promotion, which is {}: leave it out, or change the order in environments",
                order.names().join(", ")
            ),
            _ => continue,
        };
        faults.add(path_of(index), fault);
    }
    check_reserved(&environment.depends_on, &environment.ci, path, faults);
}

/// Keys whose meaning is settled but that are not supported yet: they must not be accepted as if they had an effect.
pub(super) fn check_reserved(depends_on: &Reserved, ci: &Reserved, path: &str, faults: &mut Faults) {
    faults.require(
        !depends_on.0,
        format!("{path}.depends_on"),
        "is not supported yet: leave it out. It will name other services whose rollouts are verified before this one's",
    );
    faults.require(
        !ci.0,
        format!("{path}.ci"),
        "is not supported yet: leave it out. It will name the checks that a commit has to pass before it is released",
    );
}
