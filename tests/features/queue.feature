Feature: Taking tasks from the queue
  A client takes the next task, or one it knows, and has it for itself for a while.

  Scenario Outline: The next task is handed out
    Given a client of the <dialect> API
    And a task that calls "/good"
    When it asks for the next task
    Then the answer is 200
    And it is given the task, with its payload, as "<status>"
    And the task is found as "<status>"

    Examples:
      | dialect     | status   |
      | versioned   | Pending  |
      | unversioned | Dequeued |

  Scenario Outline: An empty queue says so
    Given a client of the <dialect> API
    When it asks for the next task
    Then the answer is 404
    And the problem is "queue-empty"

    Examples:
      | dialect     |
      | versioned   |
      | unversioned |

  Scenario: A task is handed out to one client only
    Given a client of the versioned API
    And a task that calls "/good"
    When it asks for the next task
    And it asks for the next task
    Then the answer is 404

  Scenario: A task is taken by its id
    Given a client of the versioned API
    And a task that calls "/good"
    When it asks for that task
    Then the answer is 200
    And it is given the task, with its payload, as "Pending"

  Scenario: A task that is taken cannot be taken again
    Given a client of the versioned API
    And a task that calls "/good"
    When it asks for that task
    And it asks for that task
    Then the answer is 409
    And it is told that the task is "Pending"

  Scenario: A task that is given back waits again
    Given a client of the versioned API
    And a task that calls "/good"
    And the task has been taken
    When it gives the task back
    Then the answer is 200
    And the task is found as "Queued"
