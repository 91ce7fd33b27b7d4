"""Behind masks that cancel in the sum only, after a roster of whose masks there are.

site  a site's keys, its masked upload, its one answer
hub   the roster, whose uploads count, and their sum
"""

from tasks.rounds.channels.masks.hub import Hub
from tasks.rounds.channels.masks.site import Site

__all__ = ["Hub", "Site"]
