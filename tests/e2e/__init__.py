import pytest

pytest.register_assert_rewrite("tests.e2e.basics", "tests.e2e.wire")
