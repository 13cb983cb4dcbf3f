"""Optuna's own storage tests, on the storage objects that the service uses."""

import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.testing.pytest_storages import StorageTestCase

from hpo.database.storage import Storage
from hpo.worker.trial_cache import TrialCache


class TestStorage(StorageTestCase):
    @pytest.fixture
    def storage(self, address: str) -> BaseStorage:
        return Storage(address)


class TestCachedStorage(StorageTestCase):
    """What the dashboard and ``hpo.load`` use: Optuna's cache before our storage."""

    @pytest.fixture
    def storage(self, address: str) -> BaseStorage:
        return optuna.storages.get_storage(Storage(address))


class TestTrialCache(StorageTestCase):
    @pytest.fixture
    def storage(self, address: str) -> BaseStorage:
        return TrialCache(Storage(address))
