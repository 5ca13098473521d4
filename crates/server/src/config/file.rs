//! A whole configuration file: the sections that all services have, and the keys that are specific to one service.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeOwned, DeserializeSeed, Error, IntoDeserializer, MapAccess, Visitor,
        value::MapAccessDeserializer,
    },
};
use slipway_telemetry::TelemetryConfig;

use super::{BusConfig, ConfigError, DatabaseConfig, ServerConfig};

/// The part of a configuration file that is specific to one service, in addition to the sections of [`Config`].
pub trait ServiceSettings: DeserializeOwned {
    /// Checks what single values do not show. Reads no file and connects to nothing, so that a configuration can be
    /// checked on any machine.
    ///
    /// # Errors
    /// Names the key and the remedy.
    fn check(&self) -> Result<(), ConfigError>;

    /// Checks the files that the keys name: certificates, tokens, passwords, keys.
    ///
    /// # Errors
    /// Names the key and the file.
    fn check_files(&self) -> Result<(), ConfigError> {
        Ok(())
    }
}

/// A service's configuration file. Only `database` and what `S` requires are mandatory.
#[derive(Debug, Clone)]
pub struct Config<S> {
    pub server: ServerConfig,
    pub database: DatabaseConfig,
    pub bus: BusConfig,
    pub telemetry: TelemetryConfig,
    /// The keys that are the service's own.
    pub settings: S,
}

impl<S: ServiceSettings> Config<S> {
    /// Checks the values, without looking anywhere else.
    ///
    /// # Errors
    /// Names the key and the remedy.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.server.check()?;
        self.database.check()?;
        self.bus.check()?;
        self.settings.check()
    }

    /// Checks the files that it names too.
    ///
    /// # Errors
    /// As for [`check`](Self::check), and a file that does not exist or is not valid.
    pub fn check_files(&self) -> Result<(), ConfigError> {
        self.check()?;
        self.server.check_files()?;
        self.database.url()?;
        self.bus.redis_url()?;
        self.settings.check_files()
    }
}

impl<'de, S: Deserialize<'de>> Deserialize<'de> for Config<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(File(PhantomData))
    }
}

struct File<S>(PhantomData<S>);

impl<'de, S: Deserialize<'de>> Visitor<'de> for File<S> {
    type Value = Config<S>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a configuration: keys and values")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Config<S>, A::Error> {
        let mut sections = Sections::default();
        // It reads to the end of the file, and never sees the sections.
        let settings = S::deserialize(MapAccessDeserializer::new(OwnKeys {
            map,
            sections: &mut sections,
        }))?;
        Ok(Config {
            server: sections.server.unwrap_or_default(),
            database: sections
                .database
                .ok_or_else(|| A::Error::missing_field("database"))?,
            bus: sections.bus.unwrap_or_default(),
            telemetry: sections.telemetry.unwrap_or_default(),
            settings,
        })
    }
}

#[derive(Default)]
struct Sections {
    server: Option<ServerConfig>,
    database: Option<DatabaseConfig>,
    bus: Option<BusConfig>,
    telemetry: Option<TelemetryConfig>,
}

#[derive(Debug, Clone, Copy)]
enum Section {
    Server,
    Database,
    Bus,
    Telemetry,
}

impl Section {
    fn named(key: &str) -> Option<Self> {
        Some(match key {
            "server" => Self::Server,
            "database" => Self::Database,
            "bus" => Self::Bus,
            "telemetry" => Self::Telemetry,
            _ => return None,
        })
    }
}

/// The file's keys without the sections, which are collected on the way.
struct OwnKeys<'a, A> {
    map: A,
    sections: &'a mut Sections,
}

impl<'de, A: MapAccess<'de>> OwnKeys<'_, A> {
    fn read(&mut self, section: Section) -> Result<(), A::Error> {
        fn fill<'de, A, T>(map: &mut A, place: &mut Option<T>, name: &'static str) -> Result<(), A::Error>
        where
            A: MapAccess<'de>,
            T: Deserialize<'de>,
        {
            match place.replace(map.next_value()?) {
                None => Ok(()),
                Some(_) => Err(A::Error::duplicate_field(name)),
            }
        }
        let sections = &mut *self.sections;
        match section {
            Section::Server => fill(&mut self.map, &mut sections.server, "server"),
            Section::Database => fill(&mut self.map, &mut sections.database, "database"),
            Section::Bus => fill(&mut self.map, &mut sections.bus, "bus"),
            Section::Telemetry => fill(&mut self.map, &mut sections.telemetry, "telemetry"),
        }
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for OwnKeys<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let mut seed = Some(seed);
        loop {
            match self.map.next_key_seed(Key(&mut seed))? {
                None => return Ok(None),
                Some(AnyKey::Own(key)) => return Ok(Some(key)),
                Some(AnyKey::Section(section)) => self.read(section)?,
            }
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

enum AnyKey<K> {
    Section(Section),
    Own(K),
}

/// Reads one key. A service-specific key is given to its seed within the file's deserializer, so that an unknown one is
/// reported where it stands.
struct Key<'a, K>(&'a mut Option<K>);

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for Key<'_, K> {
    type Value = AnyKey<K::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<'de, K: DeserializeSeed<'de>> Visitor<'de> for Key<'_, K> {
    type Value = AnyKey<K::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        if let Some(section) = Section::named(key) {
            return Ok(AnyKey::Section(section));
        }
        let seed = self.0.take().ok_or_else(|| E::custom("a key was read twice"))?;
        seed.deserialize(key.into_deserializer()).map(AnyKey::Own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Own {
        colour: String,
        #[serde(default)]
        sizes: Vec<u8>,
    }

    impl ServiceSettings for Own {
        fn check(&self) -> Result<(), ConfigError> {
            if self.colour.is_empty() {
                return Err(ConfigError::invalid("colour", "is empty; name one"));
            }
            Ok(())
        }
    }

    fn read(text: &str) -> Result<Config<Own>, String> {
        let config: Config<Own> = parse("x.yaml", text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn sections_stand_anywhere_and_all_but_the_database_may_be_left_out() {
        let config = read("colour: red\ndatabase: {url: 'sqlite:///x'}").unwrap();
        assert_eq!(
            (config.settings.colour.as_str(), config.settings.sizes.len()),
            ("red", 0)
        );
        assert_eq!(config.server.listen.port(), 0);
        let config =
            read("bus: {}\nserver: {listen: '127.0.0.1:7001'}\nsizes: [1, 2]\ndatabase: {url: 'sqlite:///x'}\ncolour: red\ntelemetry: {}")
                .unwrap();
        assert_eq!(config.server.listen.port(), 7001);
        assert_eq!(config.settings.sizes, [1, 2]);
    }

    #[test]
    fn mistakes_are_reported_where_they_stand() {
        for (text, says) in [
            ("colour: red", "missing field `database`"),
            ("database: {url: 'sqlite:///x'}", "missing field `colour`"),
            (
                "database: {url: 'sqlite:///x'}\ncolour: red\nshape: round",
                "x.yaml:3:1: shape: unknown field `shape`",
            ),
            (
                "database: {url: 'sqlite:///x'}\ncolour: red\nserver: {listn: x}",
                "x.yaml:3:10: server.listn: unknown field `listn`",
            ),
            (
                "database: {url: 'sqlite:///x'}\ncolour: red\nsizes: [1, 300]",
                "x.yaml:3:12: sizes[1]",
            ),
            ("database: {url: 'sqlite:///x'}\ncolour: ''", "colour: is empty"),
            ("database: {}\ncolour: red", "database.url: is required"),
            (
                "database: {url: 'sqlite:///x'}\ncolour: red\nserver: {grace_period: 5s}",
                "server.grace_period: must be more than",
            ),
            ("- 1", "x.yaml:1:"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(says), "{text}\n{error}");
        }
    }
}
