"""The suppression list: hashes of the ids of deleted persons, whose messages later loads leave out."""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime

from ..catalog import SUPPRESSIONS
from ..segment.identity import KEYED, Id, hash_of
from ..warehouses import suppression_key
from ..warehouses.dataset import Dataset, Row, let_rows_change

KILL_POINT_LIST_OPENED = f"{__name__}:SuppressionList.__init__"  # for tests/faults
KILL_POINT_SUPPRESSED = f"{__name__}:SuppressionList.add"  # for tests/faults


class SuppressionList:
    """The suppression list of a dataset. Raises SuppressionKeyError if some of it was hashed with another key."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        rows = dataset.rows("{id}, {salt}, {kind}, {person}", SUPPRESSIONS.name)
        self.kinds: dict[tuple[str, str], str] = {}
        self.persons: dict[tuple[str, str], str] = {}
        for hashed, salt, kind, person in rows:
            self.kinds[salt, hashed], self.persons[salt, hashed] = kind, person
        self.key = suppression_key.hashes(self.persons).key
        self._salts = {salt for salt, _ in self.persons}
        salts = {salt for salt in self._salts if salt.startswith(KEYED) == (self.key is not None)}
        self.salt = min(salts, default=suppression_key.new_salt(self.key))

    def hash_of(self, id_: Id) -> str:
        """Returns the hash under which this list stores a new id."""
        return hash_of(self.salt, id_, self.key)

    def pairs_of_ids(self, ids: Iterable[Id]) -> set[tuple[str, str]]:
        """Returns the pairs of salt and hash of these ids that are on the list."""
        return {(salt, hash_of(salt, id_, self.key)) for id_ in ids for salt in self._salts} & self.persons.keys()

    def persons_of(self, ids: Iterable[Id]) -> set[str]:
        """Returns the persons on the list who have one of these ids."""
        return {self.persons[pair] for pair in self.pairs_of_ids(ids)}

    def pairs_of(self, persons: Collection[str]) -> list[tuple[str, str]]:
        """Returns the pairs of salt and hash of these persons' ids."""
        return [pair for pair, person in self.persons.items() if person in persons]

    def create(self) -> None:
        """Creates the table if it is missing, and lets its rows change."""
        if SUPPRESSIONS.name not in self._dataset.columns():
            self._dataset.create(SUPPRESSIONS)
        let_rows_change(self._dataset, [SUPPRESSIONS.name])

    def add(self, ids: Collection[Id], spelt: Collection[Id], persons: Collection[str]) -> None:
        """Adds the ids that are not listed, and merges `persons` into one.

        With a key, this deletes the hashes of these ids, in any of their forms (`spelt`), that were made without a key.
        """
        table, dataset = SUPPRESSIONS.name, self._dataset
        new = {self.hash_of(id_): id_.kind for id_ in ids}
        # A person's name in the list is a hash of one of the ids, which must also be made with the key.
        named = {hashed for salt, hashed in self.persons if salt == self.salt}.intersection(persons)
        person = min(named if self.key else persons, default=min(new))
        for other in sorted(set(persons) - {person}):
            dataset.update(table, {"person": person}, dataset.template(table, "{person} = %s"), [other])
        now = datetime.now(UTC)
        rows: list[Row] = [
            (hashed, self.salt, kind, person, now)
            for hashed, kind in new.items()
            if (self.salt, hashed) not in self.persons
        ]
        if rows:
            dataset.insert(SUPPRESSIONS, rows)
        for salt, hashed in sorted(self.pairs_of_ids(spelt)) if self.key else ():
            if not salt.startswith(KEYED):
                dataset.delete(table, dataset.template(table, "{salt} = %s AND {id} = %s"), [salt, hashed])
