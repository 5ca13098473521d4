//! From the command line to a running service.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use secrecy::ExposeSecret;
use slipway_events::{Bus, MemoryBus, RedisBus};
use slipway_telemetry::{Service, TelemetryConfig};
use tokio_util::sync::CancellationToken;

use crate::{
    BusConfig, Config, ConfigError, ServiceSettings, check,
    wiring::{Listeners, RunError, Wiring},
};

/// How long the last spans may take to be sent at the end.
const FLUSH: Duration = Duration::from_secs(3);

/// The whole of a service's `main`: reads the command line and the configuration, sets up the runtime, the signals
/// (SIGTERM and SIGINT drain, a second one ends at once) and the bus, binds, runs, and reports how it ended.
///
/// The program takes `--config FILE` (or `SLIPWAY_CONFIG`), and `--check` to check everything that it needs and exit.
pub fn main<S: ServiceSettings>(
    name: &'static str,
    about: &'static str,
    run: impl AsyncFnOnce(Config<S>, Wiring, CancellationToken) -> Result<(), RunError>,
) -> ExitCode {
    let arguments = command(name, about).get_matches();
    let Some(path) = arguments.get_one::<PathBuf>("config") else {
        // clap has rejected that already.
        return ExitCode::from(2);
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{name}: runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let unusable = |error: &ConfigError| {
        let place = if matches!(error, ConfigError::Invalid { .. }) {
            format!("{}: ", path.display())
        } else {
            String::new()
        };
        eprintln!("{name}: {place}{error}");
        ExitCode::from(2)
    };
    let read = crate::config::read::<Config<S>>(path).and_then(|config| {
        config.check_files()?;
        Ok(config)
    });
    let config = match read {
        Ok(config) => config,
        Err(error) => return unusable(&error),
    };
    if arguments.get_flag("check") {
        return match runtime.block_on(check::surroundings(&config)) {
            Ok(notes) => {
                for note in notes {
                    println!("{}: note: {note}", path.display());
                }
                println!("{}: ok", path.display());
                ExitCode::SUCCESS
            }
            Err(error) => unusable(&error),
        };
    }
    runtime.block_on(start(name, config, run))
}

async fn start<S: ServiceSettings>(
    name: &'static str,
    config: Config<S>,
    run: impl AsyncFnOnce(Config<S>, Wiring, CancellationToken) -> Result<(), RunError>,
) -> ExitCode {
    let mut telemetry = config.telemetry.clone();
    if telemetry.service_name == TelemetryConfig::default().service_name {
        telemetry.service_name = name.to_owned();
    }
    let set_up = slipway_telemetry::init(&telemetry)
        .and_then(|telemetry| telemetry.service(name).map(|service| (telemetry, service)));
    let (telemetry, service) = match set_up {
        Ok(telemetry) => telemetry,
        Err(error) => {
            // There is no log yet.
            eprintln!("{name}: telemetry: {error}");
            return ExitCode::from(2);
        }
    };
    let code = match serve(name, config, service, run).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(service = name, error = error.to_string(), "service failed");
            match error {
                RunError::Config(_) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    };
    telemetry.shutdown(FLUSH).await;
    code
}

async fn serve<S: ServiceSettings>(
    name: &'static str,
    config: Config<S>,
    telemetry: Service,
    run: impl AsyncFnOnce(Config<S>, Wiring, CancellationToken) -> Result<(), RunError>,
) -> Result<(), RunError> {
    let listeners = Listeners::bind(&config.server).await?;
    let bus = bus(&config.bus)?;
    let shutdown = CancellationToken::new();
    let signals = signals(name, shutdown.clone()).map_err(RunError::other("signals"))?;
    tokio::spawn(signals);
    let wiring = Wiring::new(listeners, bus, telemetry.clone());
    telemetry.in_scope(run(config, wiring, shutdown)).await
}

/// The bus that a configuration asks for: Redis, or one within this process.
///
/// # Errors
/// A text that is not a URL. Redis need not be reachable.
pub fn bus(config: &BusConfig) -> Result<Arc<dyn Bus>, ConfigError> {
    match config.redis_url()? {
        Some(url) => {
            let bus = RedisBus::connect(url.expose_secret())
                .map_err(|error| ConfigError::invalid("bus.redis_url", error))?;
            Ok(Arc::new(bus))
        }
        None => Ok(Arc::new(MemoryBus::new(slipway_events::BusConfig::default()))),
    }
}

fn command(name: &'static str, about: &'static str) -> clap::Command {
    clap::Command::new(name)
        .about(about)
        .version(env!("CARGO_PKG_VERSION"))
        .arg(
            clap::Arg::new("config")
                .long("config")
                .short('c')
                .value_name("FILE")
                .env("SLIPWAY_CONFIG")
                .required(true)
                .value_parser(clap::value_parser!(PathBuf))
                .help("YAML configuration file; unknown keys are refused"),
        )
        .arg(
            clap::Arg::new("check")
                .long("check")
                .action(clap::ArgAction::SetTrue)
                .help("Check the configuration, the files and secrets that it names, the database and the ports, report what is wrong, and exit"),
        )
        .after_help(
            "Exits with 0 after a shutdown by SIGTERM or SIGINT, 2 when the configuration cannot be used, 1 otherwise.\n\
             SIGTERM drains: health says NOT_SERVING, requests in flight finish; a second signal ends at once.\n\
             Logs go to standard error as JSON lines; telemetry.log_filter in the configuration sets how much.",
        )
}

/// Cancels `shutdown` at the first SIGTERM or SIGINT and ends the process at the second.
fn signals(
    name: &'static str,
    shutdown: CancellationToken,
) -> std::io::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        for first in [true, false] {
            let which = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if first {
                tracing::info!(service = name, signal = which, "shutting down");
                shutdown.cancel();
            } else {
                tracing::warn!(service = name, signal = which, "ending at once");
                std::process::exit(130);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_well_formed() {
        super::command("x-svc", "does x").debug_assert();
        let help = super::command("x-svc", "does x").render_long_help().to_string();
        for word in [
            "does x",
            "--config <FILE>",
            "SLIPWAY_CONFIG",
            "--check",
            "SIGTERM",
        ] {
            assert!(help.contains(word), "{word}: {help}");
        }
    }
}
