//! The versions of Linux that the data paths need. Pure.

use std::fmt::{self, Display};

use akrobateo_core::DataPath;

/// A version of Linux, without the patch level and without the distribution's suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    major: u32,
    minor: u32,
}

/// A feature that the installed kernel lacks because the kernel is too old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingFeature {
    installed_version: KernelVersion,
    requirement: &'static Requirement,
}

#[derive(Debug, PartialEq, Eq)]
struct Requirement {
    data_path: DataPath,
    needed_version: KernelVersion,
    /// True if the data path fails without the feature. A distribution may have added the feature to an older kernel.
    is_mandatory: bool,
    /// The feature that needs the version, followed by the verb "needs" or "need".
    feature: &'static str,
    /// The consequence of an older kernel, or the remedy.
    advice: &'static str,
}

/// All requirements for the version of the kernel. A feature needs no entry if the kernel itself returns an error
/// because the feature is missing.
const REQUIREMENTS: [Requirement; 4] = [
    Requirement {
        data_path: DataPath::Kernel,
        needed_version: KernelVersion { major: 5, minor: 2 },
        is_mandatory: true,
        feature: "the kernel data path needs",
        advice: "upgrade the node, or set akrobateo.io/data-path: userspace; RHEL 8 has the features in Linux 4.18",
    },
    Requirement {
        data_path: DataPath::Kernel,
        needed_version: KernelVersion { major: 5, minor: 7 },
        is_mandatory: false,
        feature: "the metrics of each port need",
        advice: "the proxy works without them",
    },
    Requirement {
        data_path: DataPath::Userspace,
        needed_version: KernelVersion { major: 4, minor: 11 },
        is_mandatory: true,
        feature: "the userspace data path needs",
        advice: "upgrade the node",
    },
    Requirement {
        data_path: DataPath::Userspace,
        needed_version: KernelVersion { major: 5, minor: 7 },
        is_mandatory: false,
        feature: "a drain without resets needs",
        advice: "clients that connect while the proxy closes may be reset",
    },
];

impl KernelVersion {
    /// Parses the release of uname(2), for example `5.15.0-91-generic`.
    #[must_use]
    pub fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|character: char| !character.is_ascii_digit());
        let mut next = || numbers.next()?.parse().ok();
        Some(Self { major: next()?, minor: next()? })
    }

    /// Returns the features of a data path that this version does not have.
    pub fn find_missing_features(self, data_path: DataPath) -> impl Iterator<Item = MissingFeature> {
        let is_missing = move |requirement: &&Requirement| {
            requirement.data_path == data_path && self < requirement.needed_version
        };
        let missing_requirements = REQUIREMENTS.iter().filter(is_missing);
        missing_requirements.map(move |requirement| MissingFeature { installed_version: self, requirement })
    }
}

impl MissingFeature {
    /// Returns true if the data path fails without the feature.
    #[must_use]
    pub const fn is_mandatory(&self) -> bool {
        self.requirement.is_mandatory
    }
}

impl Display for KernelVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

impl Display for MissingFeature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Requirement { needed_version, feature, advice, .. } = self.requirement;
        write!(
            formatter,
            "this node runs Linux {}, but {feature} Linux {needed_version} or newer: {advice}",
            self.installed_version
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_is_parsed_without_patch_level_and_suffix() {
        for (release, version) in [
            ("6.18.1", Some((6, 18))),
            ("5.15.0-91-generic", Some((5, 15))),
            ("4.18.0-553.el8_10.x86_64", Some((4, 18))),
            ("6.6+", Some((6, 6))),
            ("6", None),
            ("linux", None),
        ] {
            let version = version.map(|(major, minor)| KernelVersion { major, minor });
            assert_eq!(KernelVersion::parse(release), version, "{release}");
        }
    }

    #[test]
    fn kernel_below_the_needed_version_lacks_the_feature() {
        for (release, data_path, expected) in [
            ("5.7", DataPath::Kernel, vec![]),
            ("5.6", DataPath::Kernel, vec![false]),
            ("5.2", DataPath::Kernel, vec![false]),
            ("5.1", DataPath::Kernel, vec![true, false]),
            ("5.7", DataPath::Userspace, vec![]),
            ("5.6", DataPath::Userspace, vec![false]),
            ("4.10", DataPath::Userspace, vec![true, false]),
        ] {
            let missing_features = KernelVersion::parse(release).unwrap().find_missing_features(data_path);
            let required_flags: Vec<_> = missing_features.map(|feature| feature.is_mandatory()).collect();
            assert_eq!(required_flags, expected, "{release}, {data_path}");
        }
    }

    #[test]
    fn message_mentions_both_versions_and_the_remedy() {
        let version = KernelVersion::parse("4.14.336").unwrap();
        let message = version.find_missing_features(DataPath::Kernel).next().unwrap().to_string();
        assert_eq!(
            message,
            "this node runs Linux 4.14, but the kernel data path needs Linux 5.2 or newer: upgrade the node, or set \
             akrobateo.io/data-path: userspace; RHEL 8 has the features in Linux 4.18"
        );
    }
}
