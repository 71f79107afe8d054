"""What a recipe works with: the base layer, a tree for its own layer, packages, users, files from PyPI."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import resources

from kapelle.errors import ImageError
from kapelle.events import Emit, Progress
from kapelle.images.standins import apt_settings, archive, control, deb, debian_version, pypi, records, resolve
from kapelle.images.standins.fetch import Fetcher
from kapelle.images.standins.tree import Tree
from kapelle.images.store import Store
from kapelle.light import Any, NamedTuple

# what the official slim images leave out of every package; later apt-get runs in the container do, too
LEFT_OUT = (
    "/usr/share/doc/", "/usr/share/groff/", "/usr/share/info/", "/usr/share/linda/", "/usr/share/lintian/",
    "/usr/share/locale/", "/usr/share/man/",
)  # fmt: skip


class Made(NamedTuple):
    """A finished recipe: what the image is told to run with, and what was given."""

    config: Mapping[str, Any]  # OCI image-spec config.md, "config": Env, Entrypoint, Cmd …
    product: str  # "Redis"
    version: str  # "7.0.15"
    note: str = ""  # what else there is to know: "without contrib"


def keep(name: str) -> bool:
    """Does a package's file go into the image? Licences stay."""
    if name.startswith(LEFT_OUT):
        return name.endswith("/copyright") or (name.endswith("/") and name.count("/") == 4)
    return True


class Kitchen:
    """One stand-in being made. Used within `Store.new_layer`; `tree` is the layer over `lowers`."""

    def __init__(self, store: Store, architecture: str, environ: Mapping[str, str], emit: Emit, reference: str) -> None:
        self.store, self.architecture, self.environ = store, architecture, environ
        self.emit, self.reference = emit, reference
        self.apt = apt_settings.read(environ)
        self.fetcher = Fetcher(
            f"{store.root}/standins/blobs/sha256", environ, emit, reference, apt_proxies=self.apt.proxies,
            ca_files=(self.apt.ca_file,),
        )  # fmt: skip
        self._archives: dict[str, archive.Archive] = {}
        self._tree: Tree | None = None
        self._installed: dict[str, resolve.Package] = {}
        self.release = ""
        self.date = 0.0
        self.sources: list[str] = []

    # -- Debian ---------------------------------------------------------------------------------------------------

    def archive(self, release: str) -> archive.Archive:
        """The release's packages, fetched on first use. ImageError if no mirror answers."""
        found = self._archives.get(release)
        if found is None:
            self.tell("Fetching package lists")
            found = archive.open_archive(
                release, self.architecture, self.fetcher, apt=self.apt, emit=self.emit, environ=self.environ
            )
            self._archives[release] = found
        return found

    def start(self, release: str, upper: str, lowers: tuple[str, ...] = ()) -> Tree:
        """Begin a layer over others of the same release. What they have installed is read from their dpkg status."""
        self.release = release
        found = self.archive(release)
        self.date = found.date
        self._tree = Tree(upper, lowers, date=found.date)
        self._installed = {p.name: p for p in _installed(self._tree.read(deb.STATUS))}
        self.sources += [f"{s.mirror} {s.name}" for s in found.suites]
        return self._tree

    @property
    def tree(self) -> Tree:
        assert self._tree is not None, "start() comes first"
        return self._tree

    def install(self, names: Iterable[str], keep: Callable[[str], bool] = keep) -> None:
        """Put packages and what they need into the tree, noted as installed; scripts are not run."""
        found = self.archive(self.release)
        try:
            packages = resolve.closure(names, found.package, found.providers, self._installed)
        except resolve.Unresolved as e:
            raise ImageError(
                f"Debian {found.version} has no package {e.wanted}" + (f", which {e.by} needs" if e.by else ""),
                details=tuple(("from", f"{s.mirror} {s.name}") for s in found.suites),
                hint="the mirror may be in the middle of an update: try again, or name another with KAP_DEBIAN_MIRROR",
            ) from e
        paths = self.fetcher.get([archive.wanted(p) for p in packages], f"{len(packages)} Debian packages")
        done = []
        for package, path in zip(packages, paths, strict=True):
            self.tell(f"Unpacking {package.name}")
            done.append(deb.install(path, self.tree, keep))
            self._installed[package.name] = package
        self._note(done)

    def extract(self, name: str, rename: Callable[[str], str | None]) -> str:
        """Put some files of one package without noting it as installed; returns its version."""
        found = self.archive(self.release)
        package = found.package(name)
        if package is None:
            raise ImageError(f"Debian {found.version} has no package {name}")
        (path,) = self.fetcher.get([archive.wanted(package)], package.name)
        deb.extract(path, self.tree, rename)
        return package.version

    def links(self, name: str, below: str) -> dict[str, str]:
        """The symbolic links of a package below a directory: where each leads → the link's name."""
        package = self.archive(self.release).package(name)
        if package is None:
            raise ImageError(f"Debian has no package {name}")
        (path,) = self.fetcher.get([archive.wanted(package)], package.name)
        return deb.links(path, below)

    def version(self, name: str) -> str:
        """The upstream version of an installed package."""
        return debian_version.upstream(self._installed[name].version)

    def _note(self, packages: list[deb.Installed]) -> None:
        names = {p.fields["Package"] for p in packages}
        old = self.tree.read(deb.STATUS).split("\n\n")  # a newer package takes the place of the base's own
        kept = "".join(f"{s}\n\n" for s in old if s.strip() and control.stanza(s).get("Package") not in names)
        self.tree.write(deb.STATUS, kept + deb.status(packages, self.tree))
        files, explicit = deb.triggers(packages)
        self._add("var/lib/dpkg/triggers/File", files)
        for name, who in explicit.items():
            self._add(f"var/lib/dpkg/triggers/{name}", who)

    def _add(self, path: str, rows: list[str]) -> None:
        have = self.tree.read(path).splitlines()
        new = [r for r in rows if r not in have]
        if new:
            self.tree.append(path, "".join(f"{r}\n" for r in new))

    # -- PyPI -----------------------------------------------------------------------------------------------------

    def wheel(self, project: str, fits: Callable[[str], bool]) -> tuple[str, str]:
        """The newest wheel of a project whose version `fits` and that runs here: its path and version.

        Raises pypi.NotThere.
        """
        self.tell(f"Asking for {project}")
        release = pypi.find(project, fits, self.architecture, self.fetcher, self.environ)
        (path,) = self.fetcher.get([release.wanted], f"{project} {release.version}")
        self.sources.append(f"{release.filename} sha256:{release.wanted.sha256}")
        return path, release.version

    # -- the system's files ---------------------------------------------------------------------------------------

    def group(self, name: str, gid: int, members: str = "") -> None:
        """Add a group, if it is not there."""
        if not _has(self.tree.read("etc/group"), name):
            self.tree.append("etc/group", f"{name}:x:{gid}:{members}\n")
            if self.tree.exists("etc/gshadow"):
                self.tree.append("etc/gshadow", f"{name}:!::{members}\n")

    def user(self, name: str, uid: int, gid: int, home: str, *, shell: str = "/usr/sbin/nologin") -> None:
        """Add a user and, if `gid` has none, the group of its name."""
        if not any(row.split(":")[2:3] == [str(gid)] for row in self.tree.read("etc/group").splitlines()):
            self.group(name, gid)
        if not _has(self.tree.read("etc/passwd"), name):
            self.tree.append("etc/passwd", f"{name}:x:{uid}:{gid}:{name}:{home}:{shell}\n")
            if self.tree.exists("etc/shadow"):
                self.tree.append("etc/shadow", f"{name}:!:{int(self.date) // 86400}::::::\n")

    def alternative(self, name: str, link: str, path: str, priority: int) -> None:
        """What update-alternatives would have set up for a name with one choice."""
        self.tree.link(link, f"/etc/alternatives/{name}")
        self.tree.link(f"etc/alternatives/{name}", path)
        self.tree.write(f"var/lib/dpkg/alternatives/{name}", f"auto\n{link}\n\n{path}\n{priority}\n\n")

    def certificates(self) -> None:
        """What update-ca-certificates does: the list, a link for each authority, the bundle.

        OpenSSL looks into its folder by hashes of names; a cert.pem beside it spares those links.
        """
        tree, top = self.tree, "usr/share/ca-certificates"
        names = [f"mozilla/{n}" for n in tree.names(f"{top}/mozilla") if n.endswith(".crt")]
        tree.write("etc/ca-certificates.conf", "".join(f"{n}\n" for n in names))
        texts = []
        for name in names:
            text = tree.read(f"{top}/{name}")
            texts.append(text if text.endswith("\n") else f"{text}\n")
            tree.link(f"etc/ssl/certs/{name[8:-4]}.pem", f"/{top}/{name}")
        tree.write("etc/ssl/certs/ca-certificates.crt", "".join(texts))
        tree.link("usr/lib/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt")

    def data(self, name: str) -> str:
        """A text file of ours, from standins/data."""
        return resources.files("kapelle.images.standins").joinpath(f"data/{name}").read_text(encoding="utf-8")

    def script(self, path: str, name: str) -> None:
        """Put a script of ours."""
        self.tree.write(path, self.data(name), 0o755)

    def tell(self, text: str) -> None:
        self.emit(Progress("image", self.reference, text))

    # -- records --------------------------------------------------------------------------------------------------

    def remembered(self, kind: str, key: str) -> dict[str, Any] | None:
        """What was kept under a key by an earlier run, or None."""
        return records.remembered(self.store, kind, key)

    def remember(self, kind: str, key: str, record: Mapping[str, Any]) -> None:
        records.remember(self.store, kind, key, record)


def _has(table: str, name: str) -> bool:
    return any(row.split(":", 1)[0] == name for row in table.splitlines())


def _installed(status: str) -> Iterable[resolve.Package]:
    for fields in control.stanzas(status):
        yield resolve.Package(
            fields["Package"], fields["Version"], fields.get("Architecture", ""), "", 0, "",
            provides=tuple(g[0] for g in control.relations(fields.get("Provides", ""))),
        )  # fmt: skip
