Feature: Executing tasks
  Executing a task calls its callback until it answers well or the attempts are used up.

  Scenario Outline: A callback that answers well completes the task
    Given a client of the <dialect> API
    And a task that calls "/good"
    And the task has been taken
    When it executes the task
    Then the answer is 200
    And it is told that the task is "Completed"
    And the callback has been called 1 time
    And the call carried the task's id, name and payload
    And the task is in the archive as "Completed"

    Examples:
      | dialect     |
      | versioned   |
      | unversioned |

  Scenario: A callback that fails uses up its only attempt
    Given a client of the versioned API
    And a task that calls "/broken" with 1 attempt
    And the task has been taken
    When it executes the task
    Then the answer is 200
    And it is told that the task is "Failed"
    And the error is recorded as "the callback answered 500"
    And the callback has been called 1 time
    And the task is among the dead letters

  Scenario: A callback that keeps failing is tried as often as asked
    Given a client of the versioned API
    And a task that calls "/broken" with 3 attempts
    And the task has been taken
    When it executes the task
    Then it is told that the task is "Failed"
    And the callback has been called 3 times
    And every attempt is logged with status 500

  Scenario: A callback that recovers completes the task
    Given a client of the versioned API
    And a task that calls "/flaky?fails=2" with 3 attempts
    And the task has been taken
    When it executes the task
    Then it is told that the task is "Completed"
    And the callback has been called 3 times
    And the history is "Queued, Pending, Processing, Retrying, Processing, Retrying, Processing, Completed"

  Scenario: A callback that refuses for good is not tried again
    Given a client of the versioned API
    And a task that calls "/permanent" with 3 attempts
    And the task has been taken
    When it executes the task
    Then it is told that the task is "Failed"
    And the callback has been called 1 time

  Scenario: The unversioned dialect tells the error of a callback that fails
    Given a client of the unversioned API
    And a task that calls "/permanent"
    And the task has been taken
    When it executes the task
    Then it is told that the task is "Failed"
    And the error is recorded as "the callback answered 422"

  Scenario Outline: Executing twice is refused
    Given a client of the <dialect> API
    And a task that calls "/good"
    And the task has been taken
    When it executes the task
    And it executes the task
    Then the answer is 409
    And it is told that the task is "Completed"
    And the callback has been called 1 time

    Examples:
      | dialect     |
      | versioned   |
      | unversioned |

  Scenario: Executing a task that nobody has taken is refused
    Given a client of the versioned API
    And a task that calls "/good"
    When it executes the task
    Then the answer is 409
    And it is told that the task is "Queued"
    And the callback has been called 0 times

  Scenario Outline: A task that does not exist cannot be executed
    Given a client of the <dialect> API
    When it executes a task that does not exist
    Then the answer is 404
    And the problem is "task-not-found"

    Examples:
      | dialect     |
      | versioned   |
      | unversioned |

  Scenario: A task for the executors runs by itself
    Given a client of the versioned API
    When it creates a task that calls "/good" and is dispatched automatically
    Then the task comes to be "Completed"
    And the callback has been called 1 time
